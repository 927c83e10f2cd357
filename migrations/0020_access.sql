-- Keys of those who may use the API. What is kept of a key is its hash: whoever reads this table can use none.
create table api_keys (
    -- SHA-256 of the key: 256 random bits need no salt and no slow hash.
    hash bytea primary key constraint a_hash_is_sha_256 check (octet_length(hash) = 32),
    name text not null,
    scopes text[] not null
        constraint scopes_are_known check (scopes <@ array['read', 'adjust', 'reserve', 'admin'] and cardinality(scopes) > 0),
    -- Null: all of them.
    warehouses uuid[] constraint so_many_are_named_at_most check (cardinality(warehouses) between 1 and 32),
    created_at timestamptz not null default now(),
    -- Null: never.
    expires_at timestamptz,
    revoked_at timestamptz
);
-- A name may be given again once its key was revoked: a key is replaced without a change of what the ledger calls its owner.
create unique index api_keys_by_name on api_keys (name) where revoked_at is null;

-- What a page opens a socket with, once, within seconds: a browser sends no header of its own there.
create table live_tickets (
    hash bytea primary key constraint a_hash_is_sha_256 check (octet_length(hash) = 32),
    principal text not null,
    scopes text[] not null,
    warehouses uuid[],
    -- When the one it was given to has to prove anew who they are.
    principal_expires_at timestamptz,
    -- Of the key it was given for, so that both end together; null for a token.
    key_hash bytea,
    expires_at timestamptz not null
);
create index live_tickets_by_time on live_tickets (expires_at);

-- Only the owner of the schema makes and revokes keys.
grant select on api_keys to stockyard_app;
grant select, insert, delete on live_tickets to stockyard_app;
