"""The practice VPS: a real machine in a container that tests, benchmarks and the demo break and heal."""
