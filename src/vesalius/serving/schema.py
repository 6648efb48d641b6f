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
    origin TEXT NOT NULL,         -- dimse, stow, watch, upload, pull, file, result
    superseded INTEGER NOT NULL DEFAULT 0,  -- other content came later under the same UID
    received REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX instances_series ON instances (study_uid, series_uid);
CREATE INDEX instances_sop ON instances (sop_uid);
CREATE INDEX instances_folder ON instances (folder);

CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,     -- the same work has the same key: it is queued once
    kind TEXT NOT NULL,           -- predict, push, golden, shadow
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

# Came later: made in an older state when it is opened, and not missed by an older version.
LATER = """
CREATE TABLE IF NOT EXISTS activations (  -- which run a rule has: the last one not undone
    number INTEGER PRIMARY KEY,   -- of the version
    rule TEXT NOT NULL,
    run_id TEXT NOT NULL, path TEXT NOT NULL, task TEXT NOT NULL, modalities TEXT NOT NULL,
    digest TEXT NOT NULL,         -- SHA-256 of what the run answers with
    since TEXT NOT NULL, actor TEXT NOT NULL, reason TEXT NOT NULL,
    undone TEXT NOT NULL DEFAULT ''       -- when it was rolled back
);
CREATE INDEX IF NOT EXISTS activations_rule ON activations (rule, undone, number);

CREATE TABLE IF NOT EXISTS shadows (      -- candidates that see what the active run sees
    rule TEXT PRIMARY KEY,
    run_id TEXT NOT NULL, path TEXT NOT NULL, task TEXT NOT NULL, modalities TEXT NOT NULL,
    digest TEXT NOT NULL, since TEXT NOT NULL, actor TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS golden_cases ( -- inputs below golden/NAME/exam, without identity
    rule TEXT NOT NULL, name TEXT NOT NULL, added TEXT NOT NULL, PRIMARY KEY (rule, name)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS run_health (   -- what the last check of a run found
    run_id TEXT PRIMARY KEY,
    checked REAL NOT NULL, healthy INTEGER NOT NULL, cases INTEGER NOT NULL, words TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS observations ( -- facts of one study's images and answer
    number INTEGER PRIMARY KEY,
    rule TEXT NOT NULL, run_id TEXT NOT NULL, scanner TEXT NOT NULL, site TEXT NOT NULL,
    at REAL NOT NULL, facts TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS observations_run ON observations (rule, run_id, number);

CREATE TABLE IF NOT EXISTS drift (        -- the last look at each group of a run's studies
    rule TEXT NOT NULL, run_id TEXT NOT NULL, of TEXT NOT NULL,
    upto INTEGER NOT NULL,        -- the last observation that was looked at
    at REAL NOT NULL, found TEXT NOT NULL, PRIMARY KEY (rule, run_id, of)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS reviews (      -- what people said of results; never changed, only added
    number INTEGER PRIMARY KEY,
    study_uid TEXT NOT NULL, job INTEGER NOT NULL,
    object TEXT NOT NULL,         -- SOP Instance UID of the label map, or nothing
    reader TEXT NOT NULL, name TEXT NOT NULL,     -- the key's
    decision TEXT NOT NULL,       -- accept, edit, reject
    reasons TEXT NOT NULL, comment TEXT NOT NULL, -- codes (JSON), and words
    label TEXT NOT NULL,          -- the right class, of a classifier's answer
    mask TEXT NOT NULL,           -- file below reviews/, or nothing
    learn INTEGER NOT NULL,       -- whether to train on it
    at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS reviews_study ON reviews (study_uid, number);

CREATE TABLE IF NOT EXISTS learned (      -- what lies below corrections/, to train on
    place TEXT NOT NULL, name TEXT NOT NULL,      -- folder, and file without its suffix
    study_uid TEXT NOT NULL, review INTEGER NOT NULL,
    facts TEXT NOT NULL,          -- JSON: its line of cases.csv
    PRIMARY KEY (place, name)
) WITHOUT ROWID;
"""
