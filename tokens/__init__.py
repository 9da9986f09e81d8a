"""The strong-room: the only place that touches tokens, the vault and the network. It knows no other room."""
