//! The functions of the extension aiven_extras, with which a provider lets its users do some of what takes a superuser.

/// The function that makes a publication of some tables, whoever owns them, and gives it to the session's user.
pub const CREATE_PUBLICATION: &str = "pg_create_publication";

/// The function that sets `session_replication_role`.
pub const SESSION_REPLICATION_ROLE: &str = "session_replication_role";

/// A query that has a row where the session's role may call a function of it. They do what they do as their owner, a superuser: any other function
/// of such a name is not called.
pub fn callable(function: &str) -> String {
    format!(
        "SELECT FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace s ON s.oid = f.pronamespace \
           JOIN pg_catalog.pg_roles o ON o.oid = f.proowner \
         WHERE s.nspname = 'aiven_extras' AND f.proname = '{function}' AND f.prosecdef AND o.rolsuper \
           AND pg_catalog.has_schema_privilege(s.oid, 'USAGE') AND pg_catalog.has_function_privilege(f.oid, 'EXECUTE')"
    )
}
