"""Commands over gcloud for one GPU VM of Google Compute Engine."""
