"""What PostgreSQL's catalogues say about a database: SQL that only reads, each statement named for what it gives.

Objects of the database's owner are those that initdb did not make (their oid is 16384 or more, as in pg_dump) and
that belong to no extension; temporary ones are nobody's. The statements count on `inventory.pin`.
"""

# Ordinary tables and leaves of partitions, biggest first, and the configuration tables of extensions, whose rows
# are dumped where `condition` holds: schema, name, both quoted,
# primary key, [column, type, modifier], condition.
TABLES = """
WITH wanted AS (
    SELECT c.oid, '' AS condition FROM pg_class c
    WHERE c.relkind = 'r' AND c.oid >= 16384 AND c.relpersistence <> 't' AND NOT EXISTS (
        SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    UNION ALL
    SELECT x.oid, x.condition FROM pg_extension e, unnest(e.extconfig, e.extcondition) AS x (oid, condition)
    JOIN pg_class c ON c.oid = x.oid AND c.relkind = 'r'
)
SELECT n.nspname, c.relname, format('%I.%I', n.nspname, c.relname),
    ARRAY(
        SELECT a.attname::text FROM pg_index i, unnest(i.indkey) WITH ORDINALITY AS k (number, place)
        JOIN pg_attribute a ON a.attnum = k.number
        WHERE i.indrelid = c.oid AND i.indisprimary AND a.attrelid = c.oid ORDER BY k.place
    ),
    ARRAY(
        SELECT ARRAY[a.attname::text, a.atttypid::regtype::text, a.atttypmod::text] FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attname COLLATE "C"
    ),
    w.condition
FROM wanted w JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
ORDER BY pg_table_size(c.oid) DESC
"""

# What is needed to say which number each sequence gave out last: schema, name, both quoted, start, step, whether it
# begins again at its end.
SEQUENCES = """
SELECT n.nspname, c.relname, format('%I.%I', n.nspname, c.relname), s.seqstart, s.seqincrement, s.seqcycle
FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid >= 16384 AND c.relpersistence <> 't' AND NOT EXISTS (
    SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1, 2
"""

# Everything that is defined: what it is, its definition, and the part of its definition that PostgreSQL wrote from
# a parsed expression, which may come back from a dump with other casts and parentheses.
OBJECTS = """
WITH relation AS (
    SELECT c.* FROM pg_class c
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c', 'S') AND c.oid >= 16384 AND c.relpersistence <> 't'
        AND NOT EXISTS (
            SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
), object (class, id, part, exact, expression) AS (
    SELECT 'pg_class'::regclass, c.oid, 0, concat_ws(' ',
            c.relpersistence, a.amname, c.reloptions, c.relreplident, c.relrowsecurity, c.relforcerowsecurity,
            nullif(c.reloftype, 0)::regtype, CASE WHEN c.relkind = 'm' THEN c.relispopulated END,
            (SELECT string_agg(i.inhparent::regclass::text, ',' ORDER BY i.inhseqno)
                FROM pg_inherits i WHERE i.inhrelid = c.oid),
            (SELECT concat_ws(' ', s.srvname, f.ftoptions)
                FROM pg_foreign_table f JOIN pg_foreign_server s ON s.oid = f.ftserver WHERE f.ftrelid = c.oid)),
        concat_ws(' ', pg_get_expr(c.relpartbound, c.oid), CASE c.relkind WHEN 'p' THEN pg_get_partkeydef(c.oid)
            WHEN 'v' THEN pg_get_viewdef(c.oid) WHEN 'm' THEN pg_get_viewdef(c.oid) END)
    FROM relation c LEFT JOIN pg_am a ON a.oid = c.relam WHERE c.relkind NOT IN ('c', 'S')
    UNION ALL
    SELECT 'pg_class'::regclass, c.oid, 0, concat_ws(' ', s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmax,
            s.seqmin, s.seqcache, s.seqcycle, c.relpersistence,
            (SELECT pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid) FROM pg_depend d
                WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i'))), ''
    FROM relation c JOIN pg_sequence s ON s.seqrelid = c.oid
    UNION ALL
    SELECT 'pg_class'::regclass, c.oid, a.attnum, concat_ws(' ', format_type(a.atttypid, a.atttypmod), a.attnotnull,
            a.attidentity, a.attgenerated, nullif(a.attcollation, 0)::regcollation, a.attstorage, a.attcompression,
            a.attstattarget, a.attoptions, a.attfdwoptions), pg_get_expr(d.adbin, d.adrelid)
    FROM relation c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum WHERE c.relkind <> 'S'
    UNION ALL  -- pg_dump leaves invalid indexes out
    SELECT 'pg_class'::regclass, i.indexrelid, 0, concat_ws(' ', i.indisclustered, i.indisreplident),
        pg_get_indexdef(i.indexrelid)
    FROM relation c JOIN pg_index i ON i.indrelid = c.oid WHERE i.indisvalid OR c.relkind = 'p'
    UNION ALL  -- a partition's copy of a foreign key gets a name of its own at each restore
    SELECT 'pg_constraint'::regclass, o.oid, 0, o.contype::text, pg_get_constraintdef(o.oid)
    FROM relation c JOIN pg_constraint o ON o.conrelid = c.oid WHERE o.contype <> 'f' OR o.conparentid = 0
    UNION ALL
    SELECT 'pg_trigger'::regclass, t.oid, 0, t.tgenabled::text, pg_get_triggerdef(t.oid)
    FROM relation c JOIN pg_trigger t ON t.tgrelid = c.oid WHERE NOT t.tgisinternal
    UNION ALL
    SELECT 'pg_rewrite'::regclass, r.oid, 0, r.ev_enabled::text, pg_get_ruledef(r.oid)
    FROM relation c JOIN pg_rewrite r ON r.ev_class = c.oid WHERE r.rulename <> '_RETURN'
    UNION ALL
    SELECT 'pg_policy'::regclass, p.oid, 0, concat_ws(' ', p.polcmd, p.polpermissive, ARRAY(
            SELECT CASE r WHEN 0 THEN 'public' ELSE r::regrole::text END AS name
            FROM unnest(p.polroles) AS r ORDER BY name)),
        concat_ws(' check ', pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
    FROM relation c JOIN pg_policy p ON p.polrelid = c.oid
    UNION ALL
    SELECT 'pg_statistic_ext'::regclass, s.oid, 0, s.stxstattarget::text, pg_get_statisticsobjdef(s.oid)
    FROM relation c JOIN pg_statistic_ext s ON s.stxrelid = c.oid
    UNION ALL
    SELECT 'pg_proc'::regclass, oid, 0, CASE WHEN prosqlbody IS NULL THEN pg_get_functiondef(oid) END,
        CASE WHEN prosqlbody IS NOT NULL THEN pg_get_functiondef(oid) END
    FROM pg_proc WHERE prokind <> 'a'
    UNION ALL
    SELECT 'pg_aggregate'::regclass, p.oid, 0, concat_ws(' ', pg_get_function_result(p.oid), a.aggkind, a.aggtransfn,
            a.aggfinalfn, a.aggcombinefn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn, a.aggtranstype::regtype,
            a.aggsortop::regoperator, 'from', a.agginitval, a.aggminitval, p.proparallel), ''
    FROM pg_aggregate a JOIN pg_proc p ON p.oid = a.aggfnoid
    UNION ALL
    SELECT 'pg_type'::regclass, t.oid, 0, concat_ws(' ', t.typtype, format_type(nullif(t.typbasetype, 0), t.typtypmod),
            t.typnotnull, nullif(t.typcollation, 0)::regcollation, (SELECT string_agg(quote_literal(e.enumlabel), ','
                ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid),
            (SELECT concat_ws(' ', r.rngsubtype::regtype, nullif(r.rngcollation, 0)::regcollation, r.rngcanonical,
                r.rngsubdiff, r.rngmultitypid::regtype) FROM pg_range r WHERE r.rngtypid = t.oid)), t.typdefault
    FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
    WHERE coalesce(c.relkind = 'c', true) AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
    UNION ALL
    SELECT 'pg_constraint'::regclass, o.oid, 0, '', pg_get_constraintdef(o.oid)
    FROM pg_constraint o WHERE o.contypid <> 0
    UNION ALL
    SELECT 'pg_event_trigger'::regclass, oid, 0,
        concat_ws(' ', evtevent, evtfoid::regprocedure, evtenabled, evttags), ''
    FROM pg_event_trigger
    UNION ALL
    SELECT 'pg_publication'::regclass, oid, 0,
        concat_ws(' ', puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot), '' FROM pg_publication
    UNION ALL  -- of these only that they are there: what they are made of is in the archive, sealed by its checksum
    SELECT 'pg_publication_rel'::regclass, oid, 0, '', '' FROM pg_publication_rel UNION ALL
    SELECT 'pg_subscription'::regclass, oid, 0, '', '' FROM pg_subscription
        WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) UNION ALL
    SELECT 'pg_namespace'::regclass, oid, 0, '', '' FROM pg_namespace
        WHERE nspname !~ '^pg_(toast_)?temp_' UNION ALL
    SELECT 'pg_foreign_data_wrapper'::regclass, oid, 0, '', '' FROM pg_foreign_data_wrapper UNION ALL
    SELECT 'pg_foreign_server'::regclass, oid, 0, '', '' FROM pg_foreign_server UNION ALL
    SELECT 'pg_user_mapping'::regclass, umid, 0, '', '' FROM pg_user_mappings UNION ALL
    SELECT 'pg_language'::regclass, oid, 0, '', '' FROM pg_language UNION ALL
    SELECT 'pg_cast'::regclass, oid, 0, '', '' FROM pg_cast UNION ALL
    SELECT 'pg_collation'::regclass, oid, 0, '', '' FROM pg_collation UNION ALL
    SELECT 'pg_conversion'::regclass, oid, 0, '', '' FROM pg_conversion UNION ALL
    SELECT 'pg_operator'::regclass, oid, 0, '', '' FROM pg_operator UNION ALL
    SELECT 'pg_opclass'::regclass, oid, 0, '', '' FROM pg_opclass UNION ALL
    SELECT 'pg_opfamily'::regclass, oid, 0, '', '' FROM pg_opfamily UNION ALL
    SELECT 'pg_am'::regclass, oid, 0, '', '' FROM pg_am UNION ALL
    SELECT 'pg_transform'::regclass, oid, 0, '', '' FROM pg_transform UNION ALL
    SELECT 'pg_ts_config'::regclass, oid, 0, '', '' FROM pg_ts_config UNION ALL
    SELECT 'pg_ts_dict'::regclass, oid, 0, '', '' FROM pg_ts_dict UNION ALL
    SELECT 'pg_ts_parser'::regclass, oid, 0, '', '' FROM pg_ts_parser UNION ALL
    SELECT 'pg_ts_template'::regclass, oid, 0, '', '' FROM pg_ts_template
), owned (class, id, part, owner, acl) AS (
    SELECT 'pg_class'::regclass, oid, 0, relowner,
        coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, relowner))
    FROM relation WHERE relkind <> 'c' UNION ALL
    SELECT 'pg_class'::regclass, c.oid, a.attnum, c.relowner, a.attacl
    FROM relation c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attacl IS NOT NULL UNION ALL
    SELECT 'pg_proc'::regclass, oid, 0, proowner, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc UNION ALL
    SELECT 'pg_type'::regclass, t.oid, 0, typowner, coalesce(typacl, acldefault('T', typowner))
    FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
    WHERE coalesce(c.relkind = 'c', true) AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid) UNION ALL
    SELECT 'pg_namespace'::regclass, oid, 0, nspowner, coalesce(nspacl, acldefault('n', nspowner)) FROM pg_namespace
    WHERE nspname !~ '^pg_(toast_)?temp_' UNION ALL
    SELECT 'pg_foreign_server'::regclass, oid, 0, srvowner, coalesce(srvacl, acldefault('S', srvowner))
    FROM pg_foreign_server UNION ALL
    SELECT 'pg_default_acl'::regclass, oid, 0, defaclrole, defaclacl FROM pg_default_acl UNION ALL
    SELECT 'pg_largeobject'::regclass, oid, 0, lomowner, coalesce(lomacl, acldefault('L', lomowner))
    FROM pg_largeobject_metadata
), described (class, id, part, kind, exact, expression) AS (
    SELECT class, id, part, '', exact, expression FROM object
    UNION ALL
    SELECT class, id, part, 'rights on ', concat_ws(' ', owner::regrole, (
        SELECT string_agg(word, ',' ORDER BY word COLLATE "C") FROM aclexplode(acl) AS a, concat_ws(' ',
            CASE a.grantee WHEN 0 THEN 'public' ELSE a.grantee::regrole::text END, a.privilege_type, a.is_grantable
        ) AS word)), '' FROM owned
    UNION ALL
    SELECT classoid, objoid, objsubid, 'comment on ', description, '' FROM pg_description
)
SELECT d.kind || i.type || ' ' || i.identity, d.exact, d.expression
FROM described d, pg_identify_object(CASE d.class WHEN 'pg_aggregate'::regclass THEN 'pg_proc'::regclass
    ELSE d.class END, d.id, d.part) AS i
WHERE (d.id >= 16384 OR d.kind = 'rights on ' AND i.type = 'schema' AND i.identity = 'public')
    AND i.identity IS NOT NULL AND coalesce(i.schema, '') !~ '^pg_(temp|toast)'
    AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.objid = d.id AND e.deptype = 'e' AND e.classid = CASE d.class
        WHEN 'pg_aggregate'::regclass THEN 'pg_proc'::regclass ELSE d.class END)
"""

EXTENSIONS = "SELECT extname, extversion FROM pg_extension ORDER BY extname"

# Who owns something here or has rights; PostgreSQL keeps no such list for the role that initdb made.
ROLES = """
SELECT r.rolname FROM pg_roles r WHERE r.oid IN (
    SELECT refobjid FROM pg_shdepend
    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND refclassid = 'pg_authid'::regclass
    UNION SELECT relowner FROM pg_class WHERE oid >= 16384
) ORDER BY r.rolname COLLATE "C"
"""

# A restored large object has zeros where the original had no page at all, so zeros at the end of a page count for
# nothing, and the length for itself.
LARGE_OBJECTS = """
SELECT (SELECT count(*) FROM pg_largeobject_metadata), coalesce(sum(hashtextextended(page COLLATE "C", 0)), 0)::text
FROM (
    SELECT loid || ':' || pageno || ':' || encode(rtrim(data, '\\x00'), 'hex')
    FROM pg_largeobject WHERE rtrim(data, '\\x00') <> ''
    UNION ALL
    SELECT m.oid || ' ' || coalesce((SELECT p.pageno * 2048::bigint + length(p.data) FROM pg_largeobject p
        WHERE p.loid = m.oid ORDER BY p.pageno DESC LIMIT 1), 0)
    FROM pg_largeobject_metadata m
) AS pages (page)
"""

# What the current role could only dump in part: tables whose rows are hidden from it, or that it may not read.
UNREADABLE = """
SELECT format('%I.%I', n.nspname, c.relname), row_security_active(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'S') AND c.oid >= 16384 AND c.relpersistence <> 't' AND (
    row_security_active(c.oid) OR NOT has_schema_privilege(c.relnamespace, 'USAGE')
    OR c.relkind <> 'S' AND NOT has_table_privilege(c.oid, 'SELECT')
    OR c.relkind = 'S' AND NOT has_sequence_privilege(c.oid, 'SELECT'))
ORDER BY 1
"""
