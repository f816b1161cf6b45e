"""Projects, over the Supabase Management API."""
