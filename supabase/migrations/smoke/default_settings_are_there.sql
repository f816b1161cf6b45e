select count(*) = 2 as are_there
from public.app_settings
where key in ('app.name', 'app.locale');
