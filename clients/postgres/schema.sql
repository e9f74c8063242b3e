-- The clients. changed is the transaction that changed the row last.
CREATE TABLE IF NOT EXISTS mtls_clients (
	client_id text COLLATE "C" PRIMARY KEY CONSTRAINT client_id_is_short CHECK (octet_length(client_id) <= 200),
	record    jsonb NOT NULL
		CONSTRAINT record_has_its_client_id CHECK (jsonb_typeof(record) = 'object' AND coalesce(record ->> 'client_id' = client_id, false))
		CONSTRAINT record_is_small CHECK (octet_length(record::text) <= 65536),
	changed   xid8 NOT NULL DEFAULT pg_current_xact_id()
);
ALTER TABLE mtls_clients ADD COLUMN IF NOT EXISTS changed xid8 NOT NULL DEFAULT pg_current_xact_id();
CREATE INDEX IF NOT EXISTS mtls_clients_changed ON mtls_clients (changed);

-- The clients that were deleted in the last day. An empty client_id stands for all of them.
CREATE TABLE IF NOT EXISTS mtls_clients_deleted (
	client_id  text COLLATE "C" NOT NULL,
	changed    xid8 NOT NULL DEFAULT pg_current_xact_id(),
	deleted_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS mtls_clients_deleted_changed ON mtls_clients_deleted (changed);

-- Notes in the row which transaction changes it, or that it is deleted.
CREATE OR REPLACE FUNCTION mtls_clients_mark() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
	IF TG_OP = 'DELETE' OR TG_OP = 'TRUNCATE' OR TG_OP = 'UPDATE' AND OLD.client_id <> NEW.client_id THEN
		EXECUTE format('INSERT INTO %I.%I (client_id) VALUES ($1)', TG_TABLE_SCHEMA, TG_TABLE_NAME || '_deleted')
			USING coalesce(OLD.client_id, '');
	END IF;
	IF TG_OP = 'INSERT' OR TG_OP = 'UPDATE' THEN
		NEW.changed := pg_current_xact_id();
		RETURN NEW;
	END IF;
	RETURN OLD;
END $$;
CREATE OR REPLACE TRIGGER mtls_mark BEFORE INSERT OR UPDATE OR DELETE ON mtls_clients
	FOR EACH ROW EXECUTE FUNCTION mtls_clients_mark();
CREATE OR REPLACE TRIGGER mtls_mark_truncate BEFORE TRUNCATE ON mtls_clients
	FOR EACH STATEMENT EXECUTE FUNCTION mtls_clients_mark();

-- Notifies of the client_id when the transaction commits. An empty one asks to look for what has changed.
CREATE OR REPLACE FUNCTION mtls_clients_notify() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
	IF TG_OP = 'TRUNCATE' OR TG_OP = 'UPDATE' AND OLD.client_id <> NEW.client_id THEN
		PERFORM pg_notify('mtls:' || TG_RELID, '');
	ELSE
		PERFORM pg_notify('mtls:' || TG_RELID, coalesce(NEW.client_id, OLD.client_id));
	END IF;
	RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER mtls_notify AFTER INSERT OR UPDATE OR DELETE ON mtls_clients
	FOR EACH ROW EXECUTE FUNCTION mtls_clients_notify();
CREATE OR REPLACE TRIGGER mtls_notify_truncate AFTER TRUNCATE ON mtls_clients
	FOR EACH STATEMENT EXECUTE FUNCTION mtls_clients_notify();
