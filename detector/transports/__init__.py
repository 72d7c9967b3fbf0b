"""What carries a mining protocol: octets of one direction in, the lines that it carries out.

Preambles of proxies, HTTP/1 and WebSocket.  Plain values, pure, bounded.
"""
