"""Index shards in other processes: the servers, and the client that a front process uses."""
