"""Background edits: workers that claim jobs from the queue by lease, and webhooks that report the end."""
