"""How a partner says yes and no: invitations, the way to Microsoft and back."""
