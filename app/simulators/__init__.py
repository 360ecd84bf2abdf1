"""Providers that train nothing and cheat on demand, in the real wire formats on real sockets."""
