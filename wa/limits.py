"""Every bound in one place, with its unit last in the name and the reason for the number.

Relations between bounds are asserted at the end.  The fast path receives its copies from here when a
worker is made (`wa._fastpath.loop.loop.Loop`), so there is one source for each number.
"""

# --- wire ---------------------------------------------------------------------------------------
PROTOCOL_VERSION = 1
PORT_DEFAULT = 7340  # docs/protocol.md, section 1
HELLO_BYTES = 8  # magic 4, version 1, suite 1, pattern 1, reserved 1
RECORD_PREFIX_BYTES = 4
NOISE_MESSAGE_BYTES_MAX = 65_535  # Noise Protocol Framework, section 3
NOISE_TAG_BYTES = 16
RECORD_PLAIN_BYTES_MAX = NOISE_MESSAGE_BYTES_MAX - NOISE_TAG_BYTES
HANDSHAKE_RECORD_BYTES_MAX = 1_024  # the longest real one (XX message 2 with certificate) is under 300
FRAMING_BYTES_MAX = 20  # of a 1:1 SEND without a time to live: type 1, to 8, id 8, length 3
# One envelope always fits one Noise message together with the longest DELIVER header and the tag.
ENVELOPE_BODY_BYTES_MAX = 65_408  # 64 KiB less 128
REQUEST_BODY_BYTES_MAX = 32_768  # 100 prekeys take under 5 KiB
TICKET_BYTES_MAX = 255  # of a resumption ticket as clients see it; this server's are 112
ERROR_TEXT_BYTES_MAX = 1_024  # of an error frame: a sentence for a person, not a page
REKEY_MESSAGES = 1 << 16  # Noise Rekey() of a direction after this many messages; nonces are never reset

# --- time to authenticate and stay ----------------------------------------------------------------
HANDSHAKE_STEP_MS_MAX = 10_000
AUTHENTICATE_MS_MAX = 30_000  # from accept to the first transport frame; also for one whole record to arrive
IDLE_MS_MAX = 330_000  # a client pings at least every 300 s
PING_INTERVAL_MS = 300_000
TICKET_LIFETIME_S = 86_400  # a phone comes back many times a day; a ticket that leaked is worth a day at most
REGISTERING_MS_MAX = 300_000  # a person looks for the code; a later verify may come on a new connection
REQUESTS_OPEN_MAX = 16  # per connection
CLOSE_FLUSH_MS_MAX = 2_000  # an ending connection may still flush its close frame for this long

# --- admission ------------------------------------------------------------------------------------
HALF_OPEN_MAX = 8_192  # per worker: 8,192 × under 1 KiB is a bounded 8 MiB
HANDSHAKES_PER_TURN_MAX = 1  # half of one by IK, two by ticket: 0.1 ms of arithmetic, which connected clients wait for
HANDSHAKES_PER_S_MAX = 12_000  # per worker: what a fast core can do with tickets, so it sheds only when behind
HANDSHAKES_PER_ADDRESS_PER_S_MAX = 1_000  # carrier NAT puts many honest phones behind one address
CONNECTIONS_PER_WORKER_MAX = 4_000_000
ACCEPTS_PER_TURN_MAX = 8  # 20 µs each: no more of a turn than a handshake takes; one while handshakes wait

# --- delivery (docs/semantics.md, rules 1 to 11) ----------------------------------------------------
LINGER_MS = 50
RESEND_AFTER_MS = 5_000
RESENDS_MAX = 3
DELIVERY_WINDOW_MAX = 64  # unacknowledged deliveries in flight per device
DELIVERY_WINDOW_BYTES_MAX = 262_144  # and their bodies together: a slow reader's memory is bounded
SENDER_WINDOW_MAX = 64  # envelopes a connection may have unaccepted before it is no longer read
MAILBOX_ENVELOPES_MAX = 1_000
OVERFLOW_PRUNE = 0  # 1 with overflow = "prune": a full mailbox gives up its lowest priority, oldest first
RETENTION_S = 30 * 86_400
RETENTION_CALL_S = 60
RETENTION_STATUS_S = 86_400
OUTPUT_BYTES_MAX = 1_048_576  # pending output of one connection; more means it does not read
BUS_BUFFER_BYTES_MAX = 16_777_216  # to one peer worker; over it new envelopes are refused with try_later
BATCH_BYTES_MAX = 8_388_608  # one mailbox batch; over it new envelopes wait with their senders
BATCH_OPS_MAX = 8_192
CALL_WAKE_AGAIN_MS = 10_000  # a call is kept 60 s and many envelopes set one up: up to six pushes, not one each

# --- accounts and keys ------------------------------------------------------------------------------
SHARDS = 1_024  # fixed when a data directory is made; 1,024 spreads evenly over up to 256 workers
WORKERS_MAX = 256  # one SO_REUSEPORT_LB group on FreeBSD
DEVICES_PER_ACCOUNT_MAX = 8
CODE_DIGITS = 6
CODE_LIFETIME_S = 600
CODE_TRIES_MAX = 5
CODES_PER_NUMBER_PER_DAY_MAX = 10
CODES_PER_ADDRESS_PER_HOUR_MAX = 1_000
ONE_TIME_PREKEYS_MAX = 100
PREKEYS_LOW = 20  # at or under this stock the device is told to top up
KEY_FETCHES_PER_PAIR_PER_DAY_MAX = 100  # (requester, target): nobody drains another's one-time prekeys
SIGNED_PREKEY_DAYS_MAX = 7
DEVICE_NAME_BYTES_MAX = 64
STATUS_ITEMS_MAX = 256
PUSH_PLATFORM_BYTES_MAX = 32
PUSH_TOKEN_BYTES_MAX = 4_096  # FCM asks for room; the endpoint URL of a UnifiedPush device has up to 1,000
VERIFY_RETRY_S = 300  # after a success the same device may repeat register.verify: its answer can get lost

# --- cold path ----------------------------------------------------------------------------------------
REQUEST_TIMEOUT_MS = 5_000  # for the answer of another worker; under the time a client waits
PEER_CALLS_OPEN_MAX = 65_536  # requests waiting for other workers; over it try_later
REGISTRY_QUEUE_MAX = 8_192  # requests waiting for the registry's thread; over it try_later
REGISTRY_BATCH_MAX = 256  # requests in one transaction: shares an fsync, yet bounds the wait of the first
SWEEP_INTERVAL_S = 3_600  # expired codes and budgets are deleted this often; it reads all of them
SWEEP_RECORDS_MAX = 10_000  # by one sweep

# --- processes ----------------------------------------------------------------------------------------
RESTARTS_MAX = 10  # within RESTARTS_WINDOW_S, over all workers; more means restarting does not help
RESTARTS_WINDOW_S = 60
START_MS_MAX = 60_000  # until every worker serves: a census of full mailboxes takes seconds
STOP_MS_MAX = 10_000  # from SIGTERM until a worker that still runs is killed; CLOSE_FLUSH_MS_MAX fits in it
LISTEN_BACKLOG = 4_096  # per worker; the kernel may lower it (somaxconn)
LOCK_WAIT_MS_MAX = 5_000  # for workers of a killed server to be gone
OPERATORS_MAX = 16  # connections to the operator socket
OPERATOR_LINE_BYTES_MAX = 4_096
WORKER_REPORT_BYTES_MAX = 65_536  # one report of a worker to the supervisor: its counters as JSON
CERTIFICATE_DAYS = 90
CERTIFICATE_RENEW_DAYS = 30  # renewed at start when less is left

# --- push (runtime/push_gateway.py) ---------------------------------------------------------------------
PUSH_PENDING_MAX = 16_384  # wake-ups of a worker whose outcome it does not know: FCM's tokens make that 8 MiB
PUSH_QUEUE_MAX = 65_536  # wake-ups in the gateway, one per device
PUSH_DATAGRAM_BYTES_MAX = 16_384  # between worker and gateway; holds the longest token and is one recv
PUSH_SOCKET_BYTES = 262_144  # send and receive buffer: FreeBSD's own would not take such a datagram
PUSH_REPORT_MS = 100  # outcomes are told to the workers together; they look about once a second
PUSH_CONCURRENCY_MAX = 64  # requests to the endpoint under way; at 100 ms each that is 640 a second
PUSH_REQUEST_MS_MAX = 10_000  # one request, from connecting to the end of the answer
PUSH_RESPONSE_BYTES_MAX = 65_536  # read so that the connection can be used again; a longer one is cut
PUSH_TRIES_MAX = 8  # with these pauses one to two minutes: an endpoint may be restarted meanwhile
PUSH_BACKOFF_MS_MIN = 1_000  # doubled and jittered
PUSH_BACKOFF_MS_MAX = 60_000  # also the most that a Retry-After is heeded
HELPER_PAUSE_MS_MIN = 500  # before a helper process is started again; doubled while it keeps dying
HELPER_PAUSE_MS_MAX = 60_000
HELPER_STEADY_MS = 60_000  # one that lived this long starts with the shortest pause again

# --- end to end (client) ------------------------------------------------------------------------------
RATCHET_SKIP_MAX = 1_000  # message keys derived in one jump
RATCHET_SKIPPED_STORED_MAX = 2_000  # per session, over all chains
RATCHET_SKIPPED_AGE_S_MAX = RETENTION_S  # nothing older can still arrive
SIGNED_PREKEY_GRACE_S = RETENTION_S  # an initial message may wait this long in a mailbox
SESSIONS_PER_PEER_MAX = 8  # simultaneous initiation needs 2; the rest is for initial messages that come late
RATCHET_CHAINS_REMEMBERED_MAX = 64  # finished receiving chains by which a late duplicate is still recognised
ONE_TIME_PREKEYS_KEPT_MAX = 2_000  # private halves: 20 full stocks, since handed-out ones may never come back
BASE_KEYS_REMEMBERED_MAX = 10_000  # per signed prekey: initiations without a one-time prekey, 32 bytes each
PASSPHRASE_MEMORY_BYTES_MAX = 1 << 30  # Argon2id, libsodium's "sensitive"; a forged header cannot ask for more
PASSPHRASE_OPERATIONS_MAX = 16

# --- client ---------------------------------------------------------------------------------------
TEXT_BYTES_MAX = 60_000  # UTF-8; padded, with map and end-to-end header, it stays within one envelope
CLIENT_RESEND_AFTER_MS = 10_000  # docs/protocol.md, section 4
CLIENT_BACKOFF_MS_MIN = 500  # first wait before a reconnect, jittered and doubled
CLIENT_BACKOFF_MS_MAX = 60_000
CLIENT_REFUSED_BACKOFF_MS_MIN = 1_000  # a recipient whose envelope was refused with try_later
CLIENT_REFUSED_BACKOFF_MS_MAX = 300_000
CLIENT_REQUEST_MS_MAX = 15_000  # a request without a response by then counts as failed
CLIENT_CONNECT_MS_MAX = 10_000  # TCP connect
CLIENT_REQUESTS_OPEN_MAX = 16  # docs/protocol.md, section 5
CLIENT_DEVICES_FRESH_S = 3_600  # a recipient's device list is fetched again after this
CLIENT_EVENTS_PENDING_MAX = 1_000  # per consumer, other than messages, which wait in the store
CLIENT_ASKS_AGAIN_MAX = 3  # times one message is encrypted anew for one device that cannot read it
CLIENT_DRAFTS_UNREADABLE_MAX = 64  # drafts to one number beyond which unreadable envelopes are not asked for
CLIENT_PAGE_MESSAGES = 50  # history is read in pages

assert RECORD_PLAIN_BYTES_MAX >= ENVELOPE_BODY_BYTES_MAX + 1 + 5 + 8 + 8 + 5 + 3
assert HANDSHAKE_RECORD_BYTES_MAX >= 1 + 2 + TICKET_BYTES_MAX + 32 + 9 + NOISE_TAG_BYTES
assert HANDSHAKE_STEP_MS_MAX <= AUTHENTICATE_MS_MAX
assert PING_INTERVAL_MS < IDLE_MS_MAX
assert LINGER_MS < RESEND_AFTER_MS
assert CALL_WAKE_AGAIN_MS < RETENTION_CALL_S * 1_000
assert DELIVERY_WINDOW_MAX <= MAILBOX_ENVELOPES_MAX
assert DELIVERY_WINDOW_BYTES_MAX >= ENVELOPE_BODY_BYTES_MAX
assert OUTPUT_BYTES_MAX > DELIVERY_WINDOW_BYTES_MAX + RECORD_PLAIN_BYTES_MAX
assert BATCH_BYTES_MAX > 2 * ENVELOPE_BODY_BYTES_MAX
assert PREKEYS_LOW < ONE_TIME_PREKEYS_MAX
assert VERIFY_RETRY_S < CODE_LIFETIME_S
assert REGISTRY_BATCH_MAX <= REGISTRY_QUEUE_MAX
assert CLOSE_FLUSH_MS_MAX < STOP_MS_MAX
assert PUSH_PLATFORM_BYTES_MAX + PUSH_TOKEN_BYTES_MAX + 256 <= PUSH_DATAGRAM_BYTES_MAX <= PUSH_SOCKET_BYTES
assert PUSH_BACKOFF_MS_MIN < PUSH_BACKOFF_MS_MAX
assert HELPER_PAUSE_MS_MIN < HELPER_PAUSE_MS_MAX <= HELPER_STEADY_MS
assert CERTIFICATE_RENEW_DAYS < CERTIFICATE_DAYS
assert TEXT_BYTES_MAX + TEXT_BYTES_MAX // 16 + 1_024 <= ENVELOPE_BODY_BYTES_MAX
assert CLIENT_BACKOFF_MS_MIN < CLIENT_BACKOFF_MS_MAX
assert CLIENT_RESEND_AFTER_MS > LINGER_MS
assert WORKERS_MAX * 4 <= SHARDS
assert RATCHET_SKIP_MAX <= RATCHET_SKIPPED_STORED_MAX
assert SIGNED_PREKEY_GRACE_S >= RETENTION_S
assert ONE_TIME_PREKEYS_KEPT_MAX >= 2 * ONE_TIME_PREKEYS_MAX
