"""Where providers' webhooks come in: verified, stored, answered; what follows is the driver's."""
