"""Flow exports: NetFlow v5, v9 and IPFIX datagrams in, column batches out."""
