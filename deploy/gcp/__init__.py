"""One GPU VM of Google Compute Engine: commands over gcloud."""
