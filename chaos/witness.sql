-- Witnesses: triggers in a platform's database that record which process wrote to a row that only
-- the holder of a claim may write, and which worker held the job at that moment. The sessions of a
-- campaign's workers name their process in application_name, and a worker's id (host:pid:random)
-- contains it too. Not part of pgworker.

create schema chaos;

create table chaos.writes (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    writer_pid text,
    wrote text not null,
    client_id uuid,
    -- Of the client's newest job at that moment.
    holder text,
    job_status text
);

create function chaos.witness_event()
returns trigger
language plpgsql
as $$
begin
    insert into chaos.writes (writer_pid, wrote, client_id, holder, job_status)
    values (
        substring(current_setting('application_name') from 'pid=(\d+)'),
        'event ' || new.event, new.client_id, new.actor, 'running'
    );
    return null;
end
$$;

create trigger chaos_witness
after insert on pgworker.event_log
for each row
execute function chaos.witness_event();

create function chaos.witness_row()
returns trigger
language plpgsql
as $$
declare
    v_holder text;
    v_status text;
begin
    select job.claimed_by, job.status
    into v_holder, v_status
    from public.client_provisioning_jobs as job
    where job.client_id = new.client_id
    order by job.id desc
    limit 1;

    insert into chaos.writes (writer_pid, wrote, client_id, holder, job_status)
    values (
        substring(current_setting('application_name') from 'pid=(\d+)'),
        tg_table_name, new.client_id, v_holder, v_status
    );
    return null;
end
$$;

-- Every table of pgworker that has a client_id, so that a new table is covered without an edit.
do $$
declare
    v_table regclass;
begin
    for v_table in
        select class.oid
        from pg_class as class
        inner join pg_attribute as attribute on attribute.attrelid = class.oid
        where
            class.relnamespace = 'pgworker'::regnamespace
            and class.relkind = 'r'
            and class.relname <> 'event_log'
            and attribute.attname = 'client_id'
            and not attribute.attisdropped
    loop
        execute format(
            'create trigger chaos_witness after insert or update on %s '
            'for each row execute function chaos.witness_row()',
            v_table
        );
    end loop;
end
$$;
