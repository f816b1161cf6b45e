-- complete takes one argument more: who holds the jobs. The functions are made after this.
drop function if exists pgworker.complete(bigint[], bigint[], jsonb[], jsonb[]);
