# SPDX-License-Identifier: Apache-2.0
"""The tables of a server's state, in SQLite.

`instances` are files below `instances/`; `series` and `studies` are what queries are answered
from; `jobs` is the queue. Times are seconds of the state's own clock (`serving.clock`).
"""

FORMAT = 1

TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE studies (
    study_uid TEXT PRIMARY KEY,
    patient_id TEXT, patient_name TEXT, birth_date TEXT, sex TEXT,
    study_date TEXT, study_time TEXT, study_id TEXT, accession TEXT, referring TEXT,
    description TEXT,
    state TEXT NOT NULL,          -- receiving, complete
    received INTEGER NOT NULL,    -- instances from outside
    first_seen REAL NOT NULL,
    last_seen REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX studies_state ON studies (state, last_seen);

CREATE TABLE series (
    series_uid TEXT NOT NULL,
    study_uid TEXT NOT NULL,
    modality TEXT, description TEXT, number INTEGER, body_part TEXT,
    PRIMARY KEY (study_uid, series_uid)
) WITHOUT ROWID;

CREATE TABLE instances (
    sha256 TEXT PRIMARY KEY,      -- of the file; its name, too
    folder TEXT NOT NULL,
    sop_uid TEXT NOT NULL, sop_class TEXT NOT NULL,
    series_uid TEXT NOT NULL, study_uid TEXT NOT NULL,
    transfer_syntax TEXT NOT NULL,
    number INTEGER, rows INTEGER, columns INTEGER, frames INTEGER,
    size INTEGER NOT NULL,
    origin TEXT NOT NULL,         -- dimse, stow, watch, result
    superseded INTEGER NOT NULL DEFAULT 0,  -- other content came later under the same UID
    received REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX instances_series ON instances (study_uid, series_uid);
CREATE INDEX instances_sop ON instances (sop_uid);
CREATE INDEX instances_folder ON instances (folder);

CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,     -- the same work has the same key: it is queued once
    kind TEXT NOT NULL,           -- predict, push
    study_uid TEXT NOT NULL,
    subject TEXT NOT NULL,        -- JSON: what to work on
    state TEXT NOT NULL,          -- ready, leased, done, refused, failed
    priority INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    interruptions INTEGER NOT NULL DEFAULT 0,
    not_before REAL NOT NULL DEFAULT 0,
    lease TEXT NOT NULL DEFAULT '',
    lease_until REAL NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    finished REAL,
    reason TEXT NOT NULL DEFAULT '',
    answer TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX jobs_ready ON jobs (kind, state, priority DESC, id);
CREATE INDEX jobs_study ON jobs (study_uid);

CREATE TABLE metadata (           -- DICOM JSON of instances, made once
    sha256 TEXT PRIMARY KEY, json BLOB NOT NULL
);

CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    digest BLOB NOT NULL,         -- SHA-256 of the secret, which has 256 random bits
    roles TEXT NOT NULL, name TEXT NOT NULL, created TEXT NOT NULL,
    revoked INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
"""
