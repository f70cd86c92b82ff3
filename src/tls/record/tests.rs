//! Our record layer against the plain TLS library, and against everything a peer may not send.
