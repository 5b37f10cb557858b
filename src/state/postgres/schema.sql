CREATE TABLE @.environments (
    project     text   NOT NULL,
    environment text   NOT NULL,
    lineage     text   NOT NULL,
    serial      bigint NOT NULL DEFAULT 0,
    fence       bigint NOT NULL DEFAULT 0,
    holder      text,
    lease_ms    bigint NOT NULL DEFAULT 0,
    renewed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    state_key   bytea,
    key_check   text   NOT NULL DEFAULT '',
    PRIMARY KEY (project, environment)
);
CREATE TABLE @.records (
    project     text   NOT NULL,
    environment text   NOT NULL,
    name        text   COLLATE "C" NOT NULL,
    content     bytea  NOT NULL,
    PRIMARY KEY (project, environment, name),
    FOREIGN KEY (project, environment) REFERENCES @.environments
);
CREATE TABLE @.previous (
    project     text   NOT NULL,
    environment text   NOT NULL,
    name        text   COLLATE "C" NOT NULL,
    content     bytea  NOT NULL,
    PRIMARY KEY (project, environment, name),
    FOREIGN KEY (project, environment) REFERENCES @.environments
);
CREATE TABLE @.keepsakes (
    project     text   NOT NULL,
    environment text   NOT NULL,
    name        text   COLLATE "C" NOT NULL,
    key         bytea  NOT NULL,
    content     bytea  NOT NULL,
    PRIMARY KEY (project, environment, name),
    FOREIGN KEY (project, environment) REFERENCES @.environments
);
CREATE TABLE @.journal (
    project     text   NOT NULL,
    environment text   NOT NULL,
    position    bigint GENERATED ALWAYS AS IDENTITY,
    batch       text   NOT NULL UNIQUE,
    lines       bytea  NOT NULL,
    PRIMARY KEY (project, environment, position),
    FOREIGN KEY (project, environment) REFERENCES @.environments
);
