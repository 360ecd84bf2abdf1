"""Providers that train nothing, cheat on demand, and speak the real wire formats on real sockets."""
