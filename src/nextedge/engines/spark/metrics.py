"""What Spark's stages took, read from its own books."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_MIB = 2**20


class StageMetrics:
    """Sums over the stages that ended since the last call.

    Spark keeps the last 1,000 stages (``spark.ui.retainedStages``), with or without its web page.
    """

    def __init__(self, session: SparkSession) -> None:
        self.session = session
        self._seen: set[tuple[int, int]] = set()

    def since_last(self) -> dict[str, Any]:
        """stages, tasks, failed_tasks, executor_seconds, input_rows, shuffle_mib, spilled_mib,
        peak_execution_mib; empty if no stage ran.
        """
        total = dict.fromkeys(
            (
                "stages",
                "tasks",
                "failed_tasks",
                "executor_seconds",
                "input_rows",
                "shuffle_rows",
                "shuffle_mib",
                "spilled_mib",
                "peak_execution_mib",
            ),
            0.0,
        )
        for stage in self._stages():
            key = stage.stageId(), stage.attemptId()
            if key in self._seen or stage.status().toString() not in ("COMPLETE", "FAILED"):
                continue
            self._seen.add(key)
            total["stages"] += 1
            total["tasks"] += stage.numTasks()
            total["failed_tasks"] += stage.numFailedTasks()
            total["executor_seconds"] += stage.executorRunTime() / 1000
            total["input_rows"] += stage.inputRecords()
            total["shuffle_rows"] += stage.shuffleWriteRecords()
            total["shuffle_mib"] += stage.shuffleWriteBytes() / _MIB
            total["spilled_mib"] += stage.diskBytesSpilled() / _MIB
            peak = stage.peakExecutionMemory() / _MIB
            total["peak_execution_mib"] = max(total["peak_execution_mib"], peak)
        return {name: round(value, 3) for name, value in total.items()} if total["stages"] else {}

    def _stages(self) -> list[Any]:
        context: Any = self.session.sparkContext
        store = context._jsc.sc().statusStore()
        empty = context._jvm.java.util.Collections.emptyList()
        stages = store.stageList(
            empty, False, False, context._gateway.new_array(context._jvm.double, 0), empty
        )
        return [stages.apply(index) for index in range(stages.size())]
