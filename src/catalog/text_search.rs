//! Text search parsers, templates, dictionaries and configurations.

use super::{Query, not_member, user_schema};
use crate::schema::text_search::{Configuration, Dictionary, Parser, Template};

/// Text search parsers.
pub fn parsers() -> Query<Parser> {
    let sql = format!(
        "SELECT p.oid::int8 AS oid, n.nspname AS schema, p.prsname AS name, p.prsstart::regproc::text AS start,
           p.prstoken::regproc::text AS token, p.prsend::regproc::text AS end,
           NULLIF(p.prsheadline::oid, 0)::regproc::text AS headline, p.prslextype::regproc::text AS lextypes
         FROM pg_catalog.pg_ts_parser p JOIN pg_catalog.pg_namespace n ON n.oid = p.prsnamespace
         WHERE {} AND {} ORDER BY n.nspname, p.prsname",
        user_schema("n"),
        not_member("pg_ts_parser", "p.oid"),
    );
    Query::new(sql)
}

/// Text search templates.
pub fn templates() -> Query<Template> {
    let sql = format!(
        "SELECT t.oid::int8 AS oid, n.nspname AS schema, t.tmplname AS name,
           NULLIF(t.tmplinit::oid, 0)::regproc::text AS init, t.tmpllexize::regproc::text AS lexize
         FROM pg_catalog.pg_ts_template t JOIN pg_catalog.pg_namespace n ON n.oid = t.tmplnamespace
         WHERE {} AND {} ORDER BY n.nspname, t.tmplname",
        user_schema("n"),
        not_member("pg_ts_template", "t.oid"),
    );
    Query::new(sql)
}

/// Text search dictionaries.
pub fn dictionaries() -> Query<Dictionary> {
    let sql = format!(
        "SELECT d.oid::int8 AS oid, n.nspname AS schema, d.dictname AS name, pg_catalog.pg_get_userbyid(d.dictowner) AS owner,
           pg_catalog.quote_ident(tn.nspname) || '.' || pg_catalog.quote_ident(t.tmplname) AS template,
           d.dictinitoption AS options
         FROM pg_catalog.pg_ts_dict d JOIN pg_catalog.pg_namespace n ON n.oid = d.dictnamespace
           JOIN pg_catalog.pg_ts_template t ON t.oid = d.dicttemplate
           JOIN pg_catalog.pg_namespace tn ON tn.oid = t.tmplnamespace
         WHERE {} AND {} ORDER BY n.nspname, d.dictname",
        user_schema("n"),
        not_member("pg_ts_dict", "d.oid"),
    );
    Query::new(sql)
}

/// Text search configurations.
pub fn configurations() -> Query<Configuration> {
    let sql = format!(
        "SELECT c.oid::int8 AS oid, n.nspname AS schema, c.cfgname AS name, pg_catalog.pg_get_userbyid(c.cfgowner) AS owner,
           pg_catalog.quote_ident(pn.nspname) || '.' || pg_catalog.quote_ident(p.prsname) AS parser,
           (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('token', m.alias, 'dictionaries', m.dictionaries)
                 ORDER BY m.maptokentype), '[]'::json)
             FROM (SELECT x.maptokentype, k.alias, pg_catalog.json_agg(
                       pg_catalog.quote_ident(dn.nspname) || '.' || pg_catalog.quote_ident(d.dictname) ORDER BY x.mapseqno)
                       AS dictionaries
                   FROM pg_catalog.pg_ts_config_map x JOIN pg_catalog.pg_ts_dict d ON d.oid = x.mapdict
                     JOIN pg_catalog.pg_namespace dn ON dn.oid = d.dictnamespace
                     JOIN pg_catalog.ts_token_type(c.cfgparser) k ON k.tokid = x.maptokentype
                   WHERE x.mapcfg = c.oid GROUP BY x.maptokentype, k.alias) m) AS mappings
         FROM pg_catalog.pg_ts_config c JOIN pg_catalog.pg_namespace n ON n.oid = c.cfgnamespace
           JOIN pg_catalog.pg_ts_parser p ON p.oid = c.cfgparser
           JOIN pg_catalog.pg_namespace pn ON pn.oid = p.prsnamespace
         WHERE {} AND {} ORDER BY n.nspname, c.cfgname",
        user_schema("n"),
        not_member("pg_ts_config", "c.oid"),
    );
    Query::new(sql)
}
