"""Every bound, with its unit in the name and the reason for the number.

The end of the file asserts the relations between bounds.  The fast path takes its copies from here when a worker is
made (`wa._fastpath.loop.loop.Loop`), so each number has one source.
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
FRAMING_BYTES_MAX = 20  # a 1:1 SEND without a time to live: type 1, to 8, id 8, length 3
# An envelope, the longest DELIVER header and the tag fit one Noise message.
ENVELOPE_BODY_BYTES_MAX = 65_408  # 64 KiB less 128
REQUEST_BODY_BYTES_MAX = 32_768  # 100 prekeys take under 5 KiB
TICKET_BYTES_MAX = 255  # a resumption ticket; this server's have 112
ERROR_TEXT_BYTES_MAX = 1_024  # an error frame holds a sentence for a person, not a page
REKEY_MESSAGES = 1 << 16  # a direction does Noise Rekey() after this many messages; nonces are never reset

# --- time to authenticate and stay ----------------------------------------------------------------
HANDSHAKE_STEP_MS_MAX = 10_000
AUTHENTICATE_MS_MAX = 30_000  # from accept to the first transport frame; also for one whole record to arrive
IDLE_MS_MAX = 330_000  # a client pings at least every 300 s
PING_INTERVAL_MS = 300_000
TICKET_LIFETIME_S = 86_400  # phones come back many times a day; a leaked ticket is good for a day at most
REGISTERING_MS_MAX = 300_000  # a person looks for the code; a later verify may use a new connection
REQUESTS_OPEN_MAX = 16  # per connection
CLOSE_FLUSH_MS_MAX = 2_000  # an ending connection has this long to flush its close frame

# --- admission ------------------------------------------------------------------------------------
HALF_OPEN_MAX = 8_192  # per worker; each takes under 1 KiB, so 8 MiB in all
# A turn serves connected clients first, then does half an IK handshake or two ticket handshakes per unit of this: a
# login storm delays a chat by at most 0.1 ms.
HANDSHAKES_PER_TURN_MAX = 1
HANDSHAKES_PER_S_MAX = 12_000  # per worker: what a fast core does with tickets, so it sheds only when behind
HANDSHAKES_PER_ADDRESS_PER_S_MAX = 1_000  # carrier NAT puts many honest phones behind one address
CONNECTIONS_PER_WORKER_MAX = 4_000_000
ACCEPTS_PER_TURN_MAX = 8  # 20 µs each, in all no longer than a handshake; only one while handshakes wait

# --- delivery (docs/semantics.md, rules 1 to 11) ----------------------------------------------------
LINGER_MS = 50
RESEND_AFTER_MS = 5_000
RESENDS_MAX = 3
DELIVERY_WINDOW_MAX = 64  # unacknowledged deliveries in flight per device
DELIVERY_WINDOW_BYTES_MAX = 262_144  # their bodies together: bounds the memory of a slow reader
SENDER_WINDOW_MAX = 64  # unanswered envelopes of a connection; then it is not read (back-pressure)
MAILBOX_ENVELOPES_MAX = 1_000
OVERFLOW_PRUNE = 0  # 1 for overflow = "prune": a full mailbox drops its lowest priority, oldest first
RETENTION_S = 30 * 86_400
RETENTION_CALL_S = 60
RETENTION_STATUS_S = 86_400
OUTPUT_BYTES_MAX = 1_048_576  # pending output of a connection; one with more is a slow reader and is closed
BUS_BUFFER_BYTES_MAX = 16_777_216  # to one peer worker; over it new envelopes are refused with try_later
BATCH_BYTES_MAX = 8_388_608  # one mailbox batch; over it new envelopes are refused with try_later
BATCH_OPS_MAX = 8_192
CALL_WAKE_AGAIN_MS = 10_000  # many envelopes set up one call, kept 60 s: up to six pushes, not one per envelope

# --- accounts and keys ------------------------------------------------------------------------------
SHARDS = 1_024  # fixed when a data directory is made; spreads evenly over up to 256 workers
WORKERS_MAX = 256  # size of an SO_REUSEPORT_LB group on FreeBSD
DEVICES_PER_ACCOUNT_MAX = 8
CODE_DIGITS = 6
CODE_LIFETIME_S = 600
CODE_TRIES_MAX = 5
CODES_PER_NUMBER_PER_DAY_MAX = 10
CODES_PER_ADDRESS_PER_HOUR_MAX = 1_000
ONE_TIME_PREKEYS_MAX = 100
PREKEYS_LOW = 20  # at or under this stock the device gets the notice prekeys_low
KEY_FETCHES_PER_PAIR_PER_DAY_MAX = 100  # per (requester, target): nobody can drain another's one-time prekeys
SIGNED_PREKEY_DAYS_MAX = 7
DEVICE_NAME_BYTES_MAX = 64
STATUS_ITEMS_MAX = 256
PUSH_PLATFORM_BYTES_MAX = 32
PUSH_TOKEN_BYTES_MAX = 4_096  # room for FCM tokens; a UnifiedPush endpoint URL has up to 1,000
VERIFY_RETRY_S = 300  # after a success the same device may repeat register.verify: the answer can get lost

# --- cold path ----------------------------------------------------------------------------------------
REQUEST_TIMEOUT_MS = 5_000  # until another worker answers; less than a client waits
PEER_CALLS_OPEN_MAX = 65_536  # requests waiting for other workers; over it try_later
REGISTRY_QUEUE_MAX = 8_192  # requests waiting for the registry's thread; over it try_later
REGISTRY_BATCH_MAX = 256  # requests per transaction: they share an fsync, and the first does not wait long
SWEEP_INTERVAL_S = 3_600  # between sweeps of expired codes and budgets; a sweep reads all of them
SWEEP_RECORDS_MAX = 10_000  # deleted by one sweep

# --- processes ----------------------------------------------------------------------------------------
RESTARTS_MAX = 10  # deaths of workers within RESTARTS_WINDOW_S, all together; more: restarting does not help
RESTARTS_WINDOW_S = 60
START_MS_MAX = 60_000  # until every worker serves: counting full mailboxes takes seconds
STOP_MS_MAX = 10_000  # from SIGTERM until a worker that still runs is killed; CLOSE_FLUSH_MS_MAX fits in it
LISTEN_BACKLOG = 4_096  # per worker; the kernel may lower it (somaxconn)
LOCK_WAIT_MS_MAX = 5_000  # until the workers of a killed server are gone
OPERATORS_MAX = 16  # connections to the operator socket
OPERATOR_LINE_BYTES_MAX = 4_096
WORKER_REPORT_BYTES_MAX = 65_536  # one report of a worker to the supervisor: its counters as JSON
CERTIFICATE_DAYS = 90
CERTIFICATE_RENEW_DAYS = 30  # a start renews a certificate with less left

# --- push (runtime/push_gateway.py) ---------------------------------------------------------------------
PUSH_PENDING_MAX = 16_384  # wake-ups of a worker without an outcome yet; 8 MiB with FCM's tokens
PUSH_QUEUE_MAX = 65_536  # wake-ups in the gateway, one per device
PUSH_DATAGRAM_BYTES_MAX = 16_384  # between worker and gateway: one recv holds the longest token
PUSH_SOCKET_BYTES = 262_144  # send and receive buffer; FreeBSD's default is too small for such a datagram
PUSH_REPORT_MS = 100  # outcomes go to the workers in batches; workers look about once a second
PUSH_CONCURRENCY_MAX = 64  # requests to the endpoint in flight; at 100 ms each, 640 a second
PUSH_REQUEST_MS_MAX = 10_000  # one request, from connecting to the end of the answer
PUSH_RESPONSE_BYTES_MAX = 65_536  # answers are read so that the connection can be used again; longer ones are cut
PUSH_TRIES_MAX = 8  # one to two minutes with these pauses: time to restart an endpoint
PUSH_BACKOFF_MS_MIN = 1_000  # doubled and jittered
PUSH_BACKOFF_MS_MAX = 60_000  # also caps a Retry-After
HELPER_PAUSE_MS_MIN = 500  # before a dead helper is started again; doubled while it keeps dying
HELPER_PAUSE_MS_MAX = 60_000
HELPER_STEADY_MS = 60_000  # after living this long a helper gets the shortest pause again

# --- end to end (client) ------------------------------------------------------------------------------
RATCHET_SKIP_MAX = 1_000  # message keys derived in one jump
RATCHET_SKIPPED_STORED_MAX = 2_000  # skipped message keys per session, over all chains
RATCHET_SKIPPED_AGE_S_MAX = RETENTION_S  # nothing older can still arrive
SIGNED_PREKEY_GRACE_S = RETENTION_S  # an initial message may wait this long in a mailbox
SESSIONS_PER_PEER_MAX = 8  # simultaneous initiation needs 2; the rest is for late initial messages
RATCHET_CHAINS_REMEMBERED_MAX = 64  # finished receiving chains: they tell a late duplicate
ONE_TIME_PREKEYS_KEPT_MAX = 2_000  # private halves, 20 full stocks: one that was handed out may never come back
BASE_KEYS_REMEMBERED_MAX = 10_000  # per signed prekey, 32 bytes each: initiations without a one-time prekey
PASSPHRASE_MEMORY_BYTES_MAX = 1 << 30  # Argon2id, libsodium's "sensitive": caps what a forged header can ask for
PASSPHRASE_OPERATIONS_MAX = 16

# --- client ---------------------------------------------------------------------------------------
TEXT_BYTES_MAX = 60_000  # UTF-8; fits one envelope with padding, map and end-to-end header
CLIENT_RESEND_AFTER_MS = 10_000  # docs/protocol.md, section 4
CLIENT_BACKOFF_MS_MIN = 500  # first wait before a reconnect; doubled and jittered
CLIENT_BACKOFF_MS_MAX = 60_000
CLIENT_REFUSED_BACKOFF_MS_MIN = 1_000  # pause of a recipient after try_later or mailbox_full
CLIENT_REFUSED_BACKOFF_MS_MAX = 300_000
CLIENT_REQUEST_MS_MAX = 15_000  # then a request without a response has failed
CLIENT_CONNECT_MS_MAX = 10_000  # TCP connect
CLIENT_REQUESTS_OPEN_MAX = 16  # docs/protocol.md, section 5
CLIENT_DEVICES_FRESH_S = 3_600  # then a recipient's device list is stale and fetched again
CLIENT_EVENTS_PENDING_MAX = 1_000  # per consumer, messages not counted: they wait in the store
CLIENT_ASKS_AGAIN_MAX = 3  # how often a message is encrypted anew for a device that cannot read it
CLIENT_DRAFTS_UNREADABLE_MAX = 64  # with more drafts to a number its unreadable envelopes are not asked for
CLIENT_PAGE_MESSAGES = 50  # a page of history

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
