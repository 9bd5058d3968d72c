"""Several processes that train one model: who they are, that none of them is waited for in vain, what they exchange.

The gradients go through MXNet's key-value store (`workers`), whose processes wait for each other without a limit. So
each of them has a connection to the scheduler besides, on which it shows every second that it lives (`watch`, `hub`).
"""
