"""`doorbuster report`: what a campaign came to, for people, for spreadsheets and for programs."""
