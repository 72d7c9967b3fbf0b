"""sFlow version 5: datagrams of samples in, one row for each sampled packet out."""
