select count(*) = 1 as is_there_once
from public.notes
where body = 'the first';
