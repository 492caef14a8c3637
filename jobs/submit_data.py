"""``muxrec data build`` under spark-submit.

::

    (cd jobs && zip -qr ../muxrec.zip muxrec_jobs) && (cd platform && zip -qr ../muxrec.zip muxrec)
    spark-submit --master MASTER --py-files muxrec.zip jobs/submit_data.py RECIPE [OPTIONS]

The driver needs muxrec's dependencies; executors need numpy and pyarrow. Input and output paths
must be visible to both.
"""

import sys

from muxrec.cli import run

if __name__ == "__main__":
    sys.exit(run(["data", "build", *sys.argv[1:]]))
