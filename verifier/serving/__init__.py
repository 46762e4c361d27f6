"""How the process serves: sockets, the service manager, and several workers under one parent."""
