"""Other servers under the same loads: Debian's ejabberd and mosquitto, plaintext, where they are installed."""
