-- Outside of a transaction, so that the audit log can be written to meanwhile; therefore alone in
-- its file, and safe to run again.
create index concurrently if not exists audit_log_occurred_at
on public.audit_log (occurred_at desc);
