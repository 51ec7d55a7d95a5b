"""Peers: Debian's ejabberd and mosquitto under the same loads, without encryption, as far as installed."""
