"""Saved objects for OpenSearch Dashboards and Kibana, and their import."""
