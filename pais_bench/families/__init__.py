"""Which images did the literature label? One file a family; pais_bench/pools.py has the contract."""
