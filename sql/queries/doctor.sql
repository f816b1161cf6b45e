-- name: ping
-- Notifies the session that sends it, on a channel of its own: wakes no worker.
notify pgworker_doctor;

-- name: sealed_samples
-- One value for each key, to check whether it can be decrypted.
select distinct on (key_id)
    client_id,
    field,
    key_id,
    nonce,
    ciphertext
from pgworker.tenant_secrets
order by key_id, updated_at desc;
