-- The impressions of the next build; ``impressions.py`` fills in the values in braces.
-- An impression without a recommendation id is known by its time instead, in the column moment.

-- actions of events on a user or an item
CREATE TEMP VIEW acts AS
SELECT event_id, kind, usr, target, rid, micros,
       CASE WHEN type = 'interact' THEN event ELSE type END AS action
FROM events
WHERE usr IS NOT NULL AND target IS NOT NULL AND type IN {acting}
  AND (type <> 'interact' OR event IN {actions});

-- impressions that clients sent, once a recommendation id and target: clients repeat them
CREATE TEMP TABLE reported AS
SELECT kind, usr, target, rid, min(micros) AS micros,
       first(position ORDER BY micros, event_id) FILTER (position IS NOT NULL) AS position
FROM (SELECT *, CASE WHEN rid = '' THEN micros ELSE 0 END AS moment FROM events
      WHERE type = 'impression' AND usr IS NOT NULL AND target IS NOT NULL)
GROUP BY kind, usr, target, rid, moment;

-- only the rows of the table that an event may be about, as tables are far larger than the log
CREATE TEMP TABLE matching AS
SELECT table_rows.* FROM table_rows
SEMI JOIN (SELECT kind, usr, target FROM acts UNION SELECT kind, usr, target FROM reported)
USING (kind, usr, target);

-- positions of logged lists, the first where a list has a target twice
CREATE TEMP TABLE logged AS SELECT DISTINCT ON (rid, kind, usr, target) * FROM logged_rows
ORDER BY rid, kind, usr, target, position;

-- An action on a position of a logged list implies impressions of all positions up to it. If the
-- client reports impressions of the list itself, it implies only the one that was acted on.
CREATE TEMP TABLE revealed AS
SELECT l.kind, l.usr, l.target, l.rid, any_value(l.micros) AS micros,
       any_value(l.position) AS position, min(acts.micros) AS arrived
FROM acts
JOIN logged AS acted USING (rid, kind, usr, target)
JOIN logged AS l ON l.rid = acted.rid AND l.position <= acted.position
WHERE l.position = acted.position
   OR acted.rid NOT IN (SELECT rid FROM reported UNION SELECT rid FROM table_rows)
GROUP BY l.kind, l.usr, l.target, l.rid;

-- impressions of the table, of clients, and implied ones; the order of rows settles every tie below
CREATE TEMP TABLE exposures AS
WITH known AS (
    SELECT kind, usr, target, rid, CASE WHEN rid = '' THEN micros ELSE 0 END AS moment
    FROM matching
), sent AS (
    SELECT * FROM (SELECT *, CASE WHEN rid = '' THEN micros ELSE 0 END AS moment FROM reported)
    ANTI JOIN known USING (kind, usr, target, rid, moment)
), implied AS (
    SELECT * FROM revealed ANTI JOIN known USING (kind, usr, target, rid)
    ANTI JOIN reported USING (kind, usr, target, rid)
)
SELECT row_number() OVER (ORDER BY number, micros, kind, usr, rid, position, target) AS row, *
FROM (
    SELECT number, kind, usr, target, rid, micros, NULL AS position, NULL AS arrived,
           action AS table_action, coalesce(acted, micros) AS table_acted FROM matching
    UNION ALL
    SELECT NULL, kind, usr, target, rid, micros, position, micros, NULL, NULL FROM sent
    UNION ALL
    SELECT NULL, kind, usr, target, rid, micros, position, greatest(arrived, micros), NULL, NULL
    FROM implied
);

-- which impression an action answers: the one of its recommendation id, nearest in time and rather
-- before it; without an id the latest one before it
CREATE TEMP TABLE direct AS
WITH by_id AS (
    SELECT exposures.row, exposures.kind, exposures.usr, exposures.target, acts.action, acts.micros,
           acts.event_id, exposures.micros AS since
    FROM acts JOIN exposures USING (rid, kind, usr, target)
    WHERE rid <> ''
    QUALIFY row_number() OVER (
        PARTITION BY acts.event_id
        ORDER BY exposures.micros > acts.micros, abs(exposures.micros - acts.micros), exposures.row) = 1
), latest AS (
    SELECT s.row, a.kind, a.usr, a.target, a.action, a.micros, a.event_id, s.micros AS since
    FROM (SELECT * FROM acts WHERE rid = '') AS a
    ASOF JOIN (SELECT kind, usr, target, micros, max(row) AS row FROM exposures
               WHERE micros IS NOT NULL GROUP BY kind, usr, target, micros) AS s
    ON a.kind = s.kind AND a.usr = s.usr AND a.target = s.target AND a.micros >= s.micros
)
SELECT *, micros - since > CASE kind WHEN 'people' THEN {people} ELSE {items} END AS late
FROM (SELECT * FROM by_id UNION ALL SELECT * FROM latest);

-- the other user's acceptance answers a request, and a block by the other user ends the connection
CREATE TEMP TABLE answers AS
SELECT row, kind, action, micros, event_id, late FROM direct
UNION ALL
SELECT row, kind, action, micros, event_id, micros - since > {people} FROM (
    SELECT request.row, request.kind, acts.action, acts.micros, acts.event_id, request.since
    FROM acts JOIN direct AS request
    ON acts.usr = request.target AND acts.target = request.usr AND acts.micros >= request.micros
    WHERE acts.kind = 'people' AND acts.action IN ('accept', 'connect', 'block')
      AND request.kind = 'people' AND request.action IN ('request', 'accept', 'connect')
      AND NOT request.late
    QUALIFY row_number() OVER (
        PARTITION BY acts.event_id ORDER BY request.micros DESC, request.row) = 1
);

-- the one action that an impression ends up with, and its time
CREATE TEMP TABLE outcome AS
WITH row_actions AS (
    SELECT row, kind, action, micros, event_id, late FROM answers
    UNION ALL
    SELECT row, kind, table_action, table_acted, '', false FROM exposures
    WHERE table_action IS NOT NULL AND row IN (SELECT row FROM answers)
), judged AS (
    SELECT *, {favour} AS favour, action IN {against} AS against FROM row_actions
), timely AS (
    -- a late action counts only as a refusal that ends an earlier favour
    SELECT * FROM judged
    QUALIFY NOT late
        OR against AND micros >= min(micros) FILTER (favour AND NOT late) OVER (PARTITION BY row)
), dated AS (
    SELECT *, max(micros) FILTER (favour) OVER (PARTITION BY row) AS favoured,
              max(micros) FILTER (against) OVER (PARTITION BY row) AS refused
    FROM timely
)
SELECT row, action, micros AS acted FROM dated
-- a refusal after a favour ends it, and a favour after a refusal replaces it
WHERE CASE WHEN favour THEN coalesce(micros > refused, true)
           WHEN against THEN coalesce(micros >= favoured, true) ELSE true END
QUALIFY row_number() OVER (
    PARTITION BY row
    ORDER BY favour OR against DESC, {strength} DESC, micros, event_id) = 1;

-- rows to add (number is null), and rows of the table that change
CREATE TEMP TABLE joined AS
SELECT row, number, kind, usr, target, nullif(rid, '') AS rid, exposures.micros,
       coalesce(exposures.position, logged.position)::BIGINT AS position, action, acted,
       CASE WHEN propensity > 0 AND propensity <= 1 THEN propensity END AS propensity,
       arrived::BIGINT AS arrived
FROM exposures LEFT JOIN outcome USING (row) LEFT JOIN logged USING (rid, kind, usr, target)
WHERE number IS NULL OR action IS NOT NULL OR propensity IS NOT NULL;
