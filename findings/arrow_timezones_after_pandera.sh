#!/usr/bin/env bash
# Importing pandera changes what pyarrow makes of datetimes that carry a zone.
#
# Versions:  Python 3.11, pandera 0.35.0, pyarrow 26.0.1, pandas 2.3.3; pyspark is not installed.
# Behaviour: `import pandera` sets PYARROW_IGNORE_TIMEZONE=1 (and SPARK_LOCAL_IP=127.0.0.1) in the environment of the
#            process, meant for pyspark.pandas but also set where pyspark is missing (pandera/external_config.py).
#            pyarrow reads the variable at each conversion and then drops the offset of a datetime: 21:00+09:00 becomes
#            21:00 UTC instead of 12:00 UTC. The result of pyarrow.array so depends on what was imported before.
# Expected:  an import leaves the results of another library as they are.
# Seen:
#   without pandera: 12:00 UTC
#   with pandera:    21:00 UTC
#   PYARROW_IGNORE_TIMEZONE=1 SPARK_LOCAL_IP=127.0.0.1
# Exit: 0 while this is so, 1 when the behaviour has changed, 2 when the packages cannot be installed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -q --disable-pip-version-check pandera==0.35.0 pandas==2.3.3 pyarrow==26.0.1 || exit 2

cat > show.py <<'PY'
import os
import sys
from datetime import datetime, timedelta, timezone

if len(sys.argv) > 1:
    __import__(sys.argv[1])
import pyarrow as pa

given = datetime(2024, 5, 1, 21, tzinfo=timezone(timedelta(hours=9)))
(micros,) = pa.array([given], pa.timestamp("us", "Asia/Tokyo")).cast(pa.int64()).to_pylist()
print(datetime.fromtimestamp(micros / 1e6, timezone.utc).strftime("%H:%M UTC"))
if len(sys.argv) > 1:
    names = ("PYARROW_IGNORE_TIMEZONE", "SPARK_LOCAL_IP")
    print(*(f"{name}={os.environ.get(name)}" for name in names))
PY
unset PYARROW_IGNORE_TIMEZONE SPARK_LOCAL_IP
cat > expected <<'TEXT'
without pandera: 12:00 UTC
with pandera:    21:00 UTC
PYARROW_IGNORE_TIMEZONE=1 SPARK_LOCAL_IP=127.0.0.1
TEXT
{
    echo "without pandera: $(venv/bin/python -W ignore show.py)"
    echo "with pandera:    $(venv/bin/python -W ignore show.py pandera)"
} | tee seen
diff expected seen && echo "the behaviour is as described"
