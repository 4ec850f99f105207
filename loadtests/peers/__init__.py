"""What Doorbuster is compared with: the same endpoint, as each one's own engineers would write it.

All but the echo run the product's own script with the arguments in plan.json (see
loadtests/bench/plan.py), one EVALSHA a request. They serve one address, believe X-User and check nothing of
the body, which favours them.
"""
