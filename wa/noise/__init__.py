"""The encrypted connection from the client's side: Noise, the server's certificate, records.

`session` is what a client uses.  Beneath it: `backend` chooses between the compiled handshake and its Python
twin (`handshake`, `transport`, `patterns`, `primitives`); `certificate` and `records` are the byte forms.
"""
