#!/bin/sh
# Run once by PostgreSQL's image while the data folder is empty: the database, its owner (migrations) and the
# application's login. What that may do is up to the migrations, which bind it by row level security.
set -eu

# psql reads the passwords itself, so that they never stand in a list of processes.
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres <<'SQL'
\set owner_password `cat /run/secrets/database_owner_password`
\set app_password `cat /run/secrets/database_app_password`
CREATE ROLE cpv_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE cpv_app LOGIN NOINHERIT PASSWORD :'app_password';
CREATE ROLE cpv_tenant NOLOGIN NOINHERIT;
CREATE ROLE cpv_system NOLOGIN NOINHERIT;
GRANT cpv_tenant, cpv_system TO cpv_owner WITH ADMIN OPTION;
CREATE DATABASE cpv OWNER cpv_owner;
REVOKE ALL ON DATABASE cpv FROM PUBLIC;
GRANT CONNECT ON DATABASE cpv TO cpv_app;
\connect cpv
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO cpv_owner;
GRANT USAGE ON SCHEMA public TO cpv_app;
SQL
