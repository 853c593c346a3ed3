-- For wrk: 64 KiB with each request.
wrk.method = "POST"
wrk.body = string.rep("sixty-four bytes of a body that a client sends to the gateway.\r\n", 1024)
