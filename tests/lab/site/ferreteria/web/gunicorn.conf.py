"""How gunicorn serves the shop; it reads this file from its working directory. nginx keeps the access log."""

bind = "0.0.0.0:5000"
workers = 2
# Loaded once and shared by the workers: two workers then fit into little memory.
preload_app = True
timeout = 10
graceful_timeout = 3
# Heartbeats on the container's disk can block a worker; shared memory cannot.
worker_tmp_dir = "/dev/shm"
