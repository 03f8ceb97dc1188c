"""The shipped model stair-mini."""
