//! System tables that are the same for every catalog, and those about things that do not exist here.

use super::columns::{Row, Table, Value, row};
use super::names::{DATABASE, NAMESPACES, OWNER, OWNER_OID, TYPES};
use super::{Definition, none};
use crate::Catalog;

fn table(name: &'static str, columns: &'static str, rows: fn(&dyn Catalog) -> Vec<Row>) -> Definition {
    Definition { table: Table { namespace: "pg_catalog", name, columns }, rows }
}

/// These tables.
pub(super) fn definitions() -> Vec<Definition> {
    let mut all = vec![
        table("pg_namespace", "oid:oid nspname:name nspowner:oid nspacl:text[]", namespaces),
        table(
            "pg_database",
            "oid:oid datname:name datdba:oid encoding:int4 datlocprovider:char datistemplate:bool datallowconn:bool \
             datconnlimit:int4 dattablespace:oid datcollate:text datctype:text daticulocale:text datcollversion:text \
             datacl:text[] datfrozenxid:int8 datminmxid:int8",
            databases,
        ),
        table(
            "pg_roles",
            "oid:oid rolname:name rolsuper:bool rolinherit:bool rolcreaterole:bool rolcreatedb:bool rolcanlogin:bool \
             rolreplication:bool rolconnlimit:int4 rolpassword:text rolvaliduntil:text rolbypassrls:bool rolconfig:text[]",
            roles,
        ),
        table(
            "pg_authid",
            "oid:oid rolname:name rolsuper:bool rolinherit:bool rolcreaterole:bool rolcreatedb:bool rolcanlogin:bool \
             rolreplication:bool rolconnlimit:int4 rolpassword:text rolvaliduntil:text rolbypassrls:bool rolconfig:text[]",
            roles,
        ),
        table(
            "pg_user",
            "usename:name usesysid:oid usecreatedb:bool usesuper:bool userepl:bool usebypassrls:bool",
            users,
        ),
        table("pg_am", "oid:oid amname:name amhandler:text amtype:char", access_methods),
        table(
            "pg_type",
            "oid:oid typname:name typnamespace:oid typowner:oid typlen:int2 typbyval:bool typtype:char typcategory:char \
             typispreferred:bool typisdefined:bool typdelim:char typrelid:oid typelem:oid typarray:oid typnotnull:bool \
             typbasetype:oid typtypmod:int4 typndims:int4 typcollation:oid typdefault:text typinput:text typoutput:text \
             typreceive:text typsend:text typsubscript:text",
            types,
        ),
        table(
            "pg_settings",
            "name:text setting:text unit:text category:text short_desc:text context:text vartype:text",
            settings,
        ),
        table("pg_tablespace", "oid:oid spcname:name spcowner:oid spcacl:text[] spcoptions:text[]", tablespaces),
        table("pg_language", "oid:oid lanname:name lanowner:oid lanispl:bool lanpltrusted:bool", languages),
        table(
            "pg_collation",
            "oid:oid collname:name collnamespace:oid collowner:oid collprovider:char collencoding:int4",
            collations,
        ),
    ];
    all.extend(ABSENT.iter().map(|(name, columns)| table(name, columns, none)));
    all
}

/// Tables about things that do not exist here; clients ask for them all the same.
const ABSENT: [(&str, &str); 31] = [
    ("pg_auth_members", "roleid:oid member:oid grantor:oid admin_option:bool"),
    ("pg_available_extensions", "name:name default_version:text installed_version:text comment:text"),
    ("pg_cast", "oid:oid castsource:oid casttarget:oid castfunc:oid castcontext:char castmethod:char"),
    ("pg_db_role_setting", "setdatabase:oid setrole:oid setconfig:text[]"),
    ("pg_depend", "classid:oid objid:oid objsubid:int4 refclassid:oid refobjid:oid refobjsubid:int4 deptype:char"),
    ("pg_description", "objoid:oid classoid:oid objsubid:int4 description:text"),
    ("pg_enum", "oid:oid enumtypid:oid enumsortorder:int4 enumlabel:name"),
    ("pg_event_trigger", "oid:oid evtname:name evtevent:name evtowner:oid evtfoid:oid evtenabled:char evttags:text[]"),
    ("pg_extension", "oid:oid extname:name extowner:oid extnamespace:oid extrelocatable:bool extversion:text"),
    ("pg_foreign_data_wrapper", "oid:oid fdwname:name fdwowner:oid fdwhandler:oid fdwvalidator:oid fdwoptions:text[]"),
    (
        "pg_foreign_server",
        "oid:oid srvname:name srvowner:oid srvfdw:oid srvtype:text srvversion:text srvoptions:text[]",
    ),
    ("pg_foreign_table", "ftrelid:oid ftserver:oid ftoptions:text[]"),
    ("pg_inherits", "inhrelid:oid inhparent:oid inhseqno:int4 inhdetachpending:bool"),
    ("pg_locks", "locktype:text database:oid relation:oid pid:int4 mode:text granted:bool transactionid:int8"),
    ("pg_opclass", "oid:oid opcmethod:oid opcname:name opcnamespace:oid opcowner:oid opcintype:oid opcdefault:bool"),
    ("pg_operator", "oid:oid oprname:name oprnamespace:oid oprleft:oid oprright:oid oprresult:oid"),
    ("pg_partitioned_table", "partrelid:oid partstrat:char partnatts:int2 partdefid:oid partattrs:int8[]"),
    (
        "pg_policy",
        "oid:oid polname:name polrelid:oid polcmd:char polpermissive:bool polroles:int8[] polqual:text polwithcheck:text",
    ),
    (
        "pg_publication",
        "oid:oid pubname:name pubowner:oid puballtables:bool pubinsert:bool pubupdate:bool pubdelete:bool",
    ),
    ("pg_publication_namespace", "oid:oid pnpubid:oid pnnspid:oid"),
    ("pg_publication_rel", "oid:oid prpubid:oid prrelid:oid prqual:text prattrs:int8[]"),
    ("pg_publication_tables", "pubname:name schemaname:name tablename:name"),
    ("pg_range", "rngtypid:oid rngsubtype:oid rngmultitypid:oid"),
    ("pg_rewrite", "oid:oid rulename:name ev_class:oid ev_type:char ev_enabled:char is_instead:bool"),
    ("pg_seclabel", "objoid:oid classoid:oid objsubid:int4 provider:text label:text"),
    ("pg_sequence", "seqrelid:oid seqtypid:oid seqstart:int8 seqincrement:int8 seqmax:int8 seqmin:int8 seqcycle:bool"),
    ("pg_sequences", "schemaname:name sequencename:name sequenceowner:name data_type:text last_value:int8"),
    ("pg_shdescription", "objoid:oid classoid:oid description:text"),
    (
        "pg_statistic_ext",
        "oid:oid stxrelid:oid stxname:name stxnamespace:oid stxowner:oid stxstattarget:int4 stxkind:text[]",
    ),
    ("pg_subscription", "oid:oid subdbid:oid subname:name subowner:oid subenabled:bool"),
    (
        "pg_trigger",
        "oid:oid tgrelid:oid tgparentid:oid tgname:name tgfoid:oid tgtype:int2 tgenabled:char tgisinternal:bool \
         tgconstraint:oid tgdeferrable:bool tginitdeferred:bool",
    ),
];

fn namespaces(_: &dyn Catalog) -> Vec<Row> {
    NAMESPACES.iter().map(|(name, oid)| row![*oid, *name, OWNER_OID, Value::Null]).collect()
}

fn databases(_: &dyn Catalog) -> Vec<Row> {
    let (utf8, locale) = (6, "C.UTF-8");
    let null = Value::Null;
    vec![row![
        1,
        DATABASE,
        OWNER_OID,
        utf8,
        "c",
        false,
        true,
        -1,
        1663,
        locale,
        locale,
        null.clone(),
        null.clone(),
        null,
        1,
        1
    ]]
}

fn roles(_: &dyn Catalog) -> Vec<Row> {
    let null = Value::Null;
    vec![row![OWNER_OID, OWNER, true, true, true, true, true, true, -1, "********", null.clone(), true, null]]
}

fn users(_: &dyn Catalog) -> Vec<Row> {
    vec![row![OWNER, OWNER_OID, true, true, true, true]]
}

fn access_methods(_: &dyn Catalog) -> Vec<Row> {
    vec![row![2, "heap", "heap_tableam_handler", "t"], row![403, "btree", "bthandler", "i"]]
}

fn tablespaces(_: &dyn Catalog) -> Vec<Row> {
    vec![row![1663, "pg_default", OWNER_OID], row![1664, "pg_global", OWNER_OID]]
}

fn languages(_: &dyn Catalog) -> Vec<Row> {
    vec![row![12, "internal", OWNER_OID, false, false], row![14, "sql", OWNER_OID, false, true]]
}

fn collations(_: &dyn Catalog) -> Vec<Row> {
    vec![row![100, "default", 11, OWNER_OID, "d", -1], row![950, "C", 11, OWNER_OID, "c", -1]]
}

fn types(_: &dyn Catalog) -> Vec<Row> {
    let mut rows = Vec::new();
    for t in &TYPES {
        let collation = if t.category == "S" { 100 } else { 0 };
        let preferred = matches!(t.name, "bool" | "text" | "oid" | "float8" | "timestamptz" | "interval");
        let function = |suffix: &str| format!("{}{suffix}", t.name);
        rows.push(row![
            t.oid,
            t.name,
            11,
            OWNER_OID,
            t.len,
            (1..=8).contains(&t.len),
            if t.category == "P" { "p" } else { "b" },
            t.category,
            preferred,
            true,
            ",",
            0,
            0,
            t.array,
            false,
            0,
            -1,
            0,
            collation,
            Value::Null,
            function("in"),
            function("out"),
            function("recv"),
            function("send"),
            "-",
        ]);
        if t.array != 0 {
            rows.push(row![
                t.array,
                format!("_{}", t.name),
                11,
                OWNER_OID,
                -1,
                false,
                "b",
                "A",
                false,
                true,
                ",",
                0,
                t.oid,
                0,
                false,
                0,
                -1,
                0,
                collation,
                Value::Null,
                "array_in",
                "array_out",
                "array_recv",
                "array_send",
                "array_subscript_handler",
            ]);
        }
    }
    rows
}

/// Parameters that `current_setting` and `pg_settings` know.
pub(super) const SETTINGS: [(&str, &str); 20] = [
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("application_name", ""),
    ("bytea_output", "hex"),
    ("client_encoding", "UTF8"),
    ("client_min_messages", "notice"),
    ("default_transaction_isolation", "serializable"),
    ("extra_float_digits", "1"),
    ("integer_datetimes", "on"),
    ("lc_collate", "C.UTF-8"),
    ("lc_ctype", "C.UTF-8"),
    ("max_identifier_length", "63"),
    ("max_index_keys", "32"),
    ("search_path", "\"$user\", public"),
    ("server_encoding", "UTF8"),
    ("server_version", concat!("16.0 (Tidemill ", env!("CARGO_PKG_VERSION"), ")")),
    ("server_version_num", "160000"),
    ("standard_conforming_strings", "on"),
    ("transaction_isolation", "serializable"),
];

fn settings(_: &dyn Catalog) -> Vec<Row> {
    SETTINGS.iter().map(|(name, value)| row![*name, *value, Value::Null, "Tidemill", "", "user", "string"]).collect()
}
