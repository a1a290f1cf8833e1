from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Broken(_message.Message):
    __slots__ = ["cpus", "fate", "threads"]
    class Fate(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    CPUS_FIELD_NUMBER: _ClassVar[int]
    FATE_ASLEEP: Broken.Fate
    FATE_FIELD_NUMBER: _ClassVar[int]
    FATE_PUT_BACK: Broken.Fate
    FATE_UNSPECIFIED: Broken.Fate
    FATE_WIDENED: Broken.Fate
    THREADS_FIELD_NUMBER: _ClassVar[int]
    cpus: str
    fate: Broken.Fate
    threads: Threads
    def __init__(self, cpus: _Optional[str] = ..., fate: _Optional[_Union[Broken.Fate, str]] = ..., threads: _Optional[_Union[Threads, _Mapping]] = ...) -> None: ...

class ControlAnswer(_message.Message):
    __slots__ = ["ended", "list_cpus", "set_online", "workload"]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    LIST_CPUS_FIELD_NUMBER: _ClassVar[int]
    SET_ONLINE_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    ended: ControlEnded
    list_cpus: ListCpusResponse
    set_online: SetOnlineResponse
    workload: WorkloadResponse
    def __init__(self, list_cpus: _Optional[_Union[ListCpusResponse, _Mapping]] = ..., set_online: _Optional[_Union[SetOnlineResponse, _Mapping]] = ..., ended: _Optional[_Union[ControlEnded, _Mapping]] = ..., workload: _Optional[_Union[WorkloadResponse, _Mapping]] = ...) -> None: ...

class ControlEnded(_message.Message):
    __slots__ = ["failed", "rejected", "request_id"]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    failed: str
    rejected: str
    request_id: str
    def __init__(self, request_id: _Optional[str] = ..., rejected: _Optional[str] = ..., failed: _Optional[str] = ...) -> None: ...

class ControlRequest(_message.Message):
    __slots__ = ["cancel", "list_cpus", "set_online", "workload"]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    LIST_CPUS_FIELD_NUMBER: _ClassVar[int]
    SET_ONLINE_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    cancel: str
    list_cpus: ListCpusRequest
    set_online: SetOnlineRequest
    workload: WorkloadRequest
    def __init__(self, list_cpus: _Optional[_Union[ListCpusRequest, _Mapping]] = ..., set_online: _Optional[_Union[SetOnlineRequest, _Mapping]] = ..., cancel: _Optional[str] = ..., workload: _Optional[_Union[WorkloadRequest, _Mapping]] = ...) -> None: ...

class ControlResponse(_message.Message):
    __slots__ = ["answers"]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[ControlAnswer]
    def __init__(self, answers: _Optional[_Iterable[_Union[ControlAnswer, _Mapping]]] = ...) -> None: ...

class Cpu(_message.Message):
    __slots__ = ["cannot_offline", "cannot_online", "core_id", "die_id", "firmware_id", "node", "number", "online", "package_id", "switching_seconds"]
    CANNOT_OFFLINE_FIELD_NUMBER: _ClassVar[int]
    CANNOT_ONLINE_FIELD_NUMBER: _ClassVar[int]
    CORE_ID_FIELD_NUMBER: _ClassVar[int]
    DIE_ID_FIELD_NUMBER: _ClassVar[int]
    FIRMWARE_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ONLINE_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_ID_FIELD_NUMBER: _ClassVar[int]
    SWITCHING_SECONDS_FIELD_NUMBER: _ClassVar[int]
    cannot_offline: Reason
    cannot_online: Reason
    core_id: int
    die_id: int
    firmware_id: str
    node: int
    number: int
    online: bool
    package_id: int
    switching_seconds: float
    def __init__(self, number: _Optional[int] = ..., firmware_id: _Optional[str] = ..., online: bool = ..., cannot_offline: _Optional[_Union[Reason, _Mapping]] = ..., cannot_online: _Optional[_Union[Reason, _Mapping]] = ..., package_id: _Optional[int] = ..., die_id: _Optional[int] = ..., core_id: _Optional[int] = ..., node: _Optional[int] = ..., switching_seconds: _Optional[float] = ...) -> None: ...

class CpuLoad(_message.Message):
    __slots__ = ["busy", "idle", "iowait", "number", "steal", "waited"]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    IOWAIT_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    STEAL_FIELD_NUMBER: _ClassVar[int]
    WAITED_FIELD_NUMBER: _ClassVar[int]
    busy: int
    idle: int
    iowait: int
    number: int
    steal: int
    waited: int
    def __init__(self, number: _Optional[int] = ..., busy: _Optional[int] = ..., steal: _Optional[int] = ..., iowait: _Optional[int] = ..., waited: _Optional[int] = ..., idle: _Optional[int] = ...) -> None: ...

class CpuResult(_message.Message):
    __slots__ = ["firmware_id", "observed", "reason", "seconds", "status"]
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    FIRMWARE_ID_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    STATUS_ABSENT: CpuResult.Status
    STATUS_ALREADY: CpuResult.Status
    STATUS_DONE: CpuResult.Status
    STATUS_FIELD_NUMBER: _ClassVar[int]
    STATUS_REFUSED: CpuResult.Status
    STATUS_UNSPECIFIED: CpuResult.Status
    firmware_id: str
    observed: Cpu
    reason: Reason
    seconds: float
    status: CpuResult.Status
    def __init__(self, firmware_id: _Optional[str] = ..., status: _Optional[_Union[CpuResult.Status, str]] = ..., reason: _Optional[_Union[Reason, _Mapping]] = ..., observed: _Optional[_Union[Cpu, _Mapping]] = ..., seconds: _Optional[float] = ...) -> None: ...

class Cpuset(_message.Message):
    __slots__ = ["cgroup", "cpus", "effective", "partition", "populated"]
    CGROUP_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    POPULATED_FIELD_NUMBER: _ClassVar[int]
    cgroup: str
    cpus: str
    effective: str
    partition: str
    populated: bool
    def __init__(self, cgroup: _Optional[str] = ..., cpus: _Optional[str] = ..., effective: _Optional[str] = ..., partition: _Optional[str] = ..., populated: bool = ...) -> None: ...

class Environment(_message.Message):
    __slots__ = ["acpi", "auto_online_rules", "clocksource", "eject_enabled", "hypervisor_flag", "isolated", "keeps_affinity", "kernel_arguments", "kernel_max", "nohz_full", "partition_isolated", "possible", "smt_control", "unhandled_gpes", "unwritable", "writable"]
    ACPI_FIELD_NUMBER: _ClassVar[int]
    AUTO_ONLINE_RULES_FIELD_NUMBER: _ClassVar[int]
    CLOCKSOURCE_FIELD_NUMBER: _ClassVar[int]
    EJECT_ENABLED_FIELD_NUMBER: _ClassVar[int]
    HYPERVISOR_FLAG_FIELD_NUMBER: _ClassVar[int]
    ISOLATED_FIELD_NUMBER: _ClassVar[int]
    KEEPS_AFFINITY_FIELD_NUMBER: _ClassVar[int]
    KERNEL_ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    KERNEL_MAX_FIELD_NUMBER: _ClassVar[int]
    NOHZ_FULL_FIELD_NUMBER: _ClassVar[int]
    PARTITION_ISOLATED_FIELD_NUMBER: _ClassVar[int]
    POSSIBLE_FIELD_NUMBER: _ClassVar[int]
    SMT_CONTROL_FIELD_NUMBER: _ClassVar[int]
    UNHANDLED_GPES_FIELD_NUMBER: _ClassVar[int]
    UNWRITABLE_FIELD_NUMBER: _ClassVar[int]
    WRITABLE_FIELD_NUMBER: _ClassVar[int]
    acpi: bool
    auto_online_rules: _containers.RepeatedScalarFieldContainer[str]
    clocksource: str
    eject_enabled: bool
    hypervisor_flag: bool
    isolated: str
    keeps_affinity: bool
    kernel_arguments: _containers.RepeatedScalarFieldContainer[str]
    kernel_max: int
    nohz_full: str
    partition_isolated: str
    possible: str
    smt_control: str
    unhandled_gpes: _containers.RepeatedScalarFieldContainer[int]
    unwritable: _containers.RepeatedScalarFieldContainer[str]
    writable: bool
    def __init__(self, possible: _Optional[str] = ..., isolated: _Optional[str] = ..., nohz_full: _Optional[str] = ..., kernel_max: _Optional[int] = ..., smt_control: _Optional[str] = ..., auto_online_rules: _Optional[_Iterable[str]] = ..., eject_enabled: bool = ..., clocksource: _Optional[str] = ..., kernel_arguments: _Optional[_Iterable[str]] = ..., hypervisor_flag: bool = ..., acpi: bool = ..., writable: bool = ..., unwritable: _Optional[_Iterable[str]] = ..., partition_isolated: _Optional[str] = ..., keeps_affinity: bool = ..., unhandled_gpes: _Optional[_Iterable[int]] = ...) -> None: ...

class HelloRequest(_message.Message):
    __slots__ = ["host_version", "protocol_max", "protocol_min"]
    HOST_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_MAX_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_MIN_FIELD_NUMBER: _ClassVar[int]
    host_version: str
    protocol_max: int
    protocol_min: int
    def __init__(self, protocol_min: _Optional[int] = ..., protocol_max: _Optional[int] = ..., host_version: _Optional[str] = ...) -> None: ...

class HelloResponse(_message.Message):
    __slots__ = ["agent_version", "arch", "boot_id", "capabilities", "environment", "event_source", "instance_id", "kernel", "load", "platform", "protocol_max", "protocol_min"]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    ARCH_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    EVENT_SOURCE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_MAX_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_MIN_FIELD_NUMBER: _ClassVar[int]
    agent_version: str
    arch: str
    boot_id: str
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    environment: Environment
    event_source: str
    instance_id: str
    kernel: str
    load: LoadSupport
    platform: str
    protocol_max: int
    protocol_min: int
    def __init__(self, protocol_min: _Optional[int] = ..., protocol_max: _Optional[int] = ..., agent_version: _Optional[str] = ..., capabilities: _Optional[_Iterable[str]] = ..., arch: _Optional[str] = ..., kernel: _Optional[str] = ..., boot_id: _Optional[str] = ..., platform: _Optional[str] = ..., event_source: _Optional[str] = ..., instance_id: _Optional[str] = ..., environment: _Optional[_Union[Environment, _Mapping]] = ..., load: _Optional[_Union[LoadSupport, _Mapping]] = ...) -> None: ...

class ListCpusRequest(_message.Message):
    __slots__ = ["request_id"]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class ListCpusResponse(_message.Message):
    __slots__ = ["request_id", "snapshot"]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    snapshot: Snapshot
    def __init__(self, request_id: _Optional[str] = ..., snapshot: _Optional[_Union[Snapshot, _Mapping]] = ...) -> None: ...

class LoadSupport(_message.Message):
    __slots__ = ["allowed", "pressure", "run_queues", "triggers"]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    PRESSURE_FIELD_NUMBER: _ClassVar[int]
    RUN_QUEUES_FIELD_NUMBER: _ClassVar[int]
    TRIGGERS_FIELD_NUMBER: _ClassVar[int]
    allowed: bool
    pressure: bool
    run_queues: bool
    triggers: bool
    def __init__(self, allowed: bool = ..., pressure: bool = ..., run_queues: bool = ..., triggers: bool = ...) -> None: ...

class NetworkDevice(_message.Message):
    __slots__ = ["driver", "most_queue_pairs", "name", "queue_pairs"]
    DRIVER_FIELD_NUMBER: _ClassVar[int]
    MOST_QUEUE_PAIRS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    QUEUE_PAIRS_FIELD_NUMBER: _ClassVar[int]
    driver: str
    most_queue_pairs: int
    name: str
    queue_pairs: int
    def __init__(self, name: _Optional[str] = ..., driver: _Optional[str] = ..., queue_pairs: _Optional[int] = ..., most_queue_pairs: _Optional[int] = ...) -> None: ...

class Pinned(_message.Message):
    __slots__ = ["cpus", "threads"]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    cpus: str
    threads: Threads
    def __init__(self, cpus: _Optional[str] = ..., threads: _Optional[_Union[Threads, _Mapping]] = ...) -> None: ...

class Quota(_message.Message):
    __slots__ = ["cgroup", "cpus", "unit"]
    CGROUP_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    cgroup: str
    cpus: float
    unit: str
    def __init__(self, cgroup: _Optional[str] = ..., unit: _Optional[str] = ..., cpus: _Optional[float] = ...) -> None: ...

class Reason(_message.Message):
    __slots__ = ["code", "errno", "errno_name", "text"]
    CODE_FIELD_NUMBER: _ClassVar[int]
    ERRNO_FIELD_NUMBER: _ClassVar[int]
    ERRNO_NAME_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    code: str
    errno: int
    errno_name: str
    text: str
    def __init__(self, code: _Optional[str] = ..., text: _Optional[str] = ..., errno: _Optional[int] = ..., errno_name: _Optional[str] = ...) -> None: ...

class SetOnlineRequest(_message.Message):
    __slots__ = ["brief", "firmware_ids", "for_eject", "online", "request_id", "wait_for_arrival", "watch"]
    BRIEF_FIELD_NUMBER: _ClassVar[int]
    FIRMWARE_IDS_FIELD_NUMBER: _ClassVar[int]
    FOR_EJECT_FIELD_NUMBER: _ClassVar[int]
    ONLINE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    WAIT_FOR_ARRIVAL_FIELD_NUMBER: _ClassVar[int]
    WATCH_FIELD_NUMBER: _ClassVar[int]
    brief: bool
    firmware_ids: _containers.RepeatedScalarFieldContainer[str]
    for_eject: bool
    online: bool
    request_id: str
    wait_for_arrival: bool
    watch: bool
    def __init__(self, request_id: _Optional[str] = ..., firmware_ids: _Optional[_Iterable[str]] = ..., online: bool = ..., wait_for_arrival: bool = ..., brief: bool = ..., for_eject: bool = ..., watch: bool = ...) -> None: ...

class SetOnlineResponse(_message.Message):
    __slots__ = ["arrived", "final", "request_id", "result"]
    ARRIVED_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    arrived: Cpu
    final: Snapshot
    request_id: str
    result: CpuResult
    def __init__(self, request_id: _Optional[str] = ..., result: _Optional[_Union[CpuResult, _Mapping]] = ..., final: _Optional[_Union[Snapshot, _Mapping]] = ..., arrived: _Optional[_Union[Cpu, _Mapping]] = ...) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ["boot_id", "cpus", "generation", "instance_id"]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    boot_id: str
    cpus: _containers.RepeatedCompositeFieldContainer[Cpu]
    generation: int
    instance_id: str
    def __init__(self, generation: _Optional[int] = ..., boot_id: _Optional[str] = ..., instance_id: _Optional[str] = ..., cpus: _Optional[_Iterable[_Union[Cpu, _Mapping]]] = ...) -> None: ...

class Thread(_message.Message):
    __slots__ = ["cgroup", "comm", "pid", "tid", "unit"]
    CGROUP_FIELD_NUMBER: _ClassVar[int]
    COMM_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    TID_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    cgroup: str
    comm: str
    pid: int
    tid: int
    unit: str
    def __init__(self, pid: _Optional[int] = ..., tid: _Optional[int] = ..., comm: _Optional[str] = ..., unit: _Optional[str] = ..., cgroup: _Optional[str] = ...) -> None: ...

class Threads(_message.Message):
    __slots__ = ["count", "some"]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SOME_FIELD_NUMBER: _ClassVar[int]
    count: int
    some: _containers.RepeatedCompositeFieldContainer[Thread]
    def __init__(self, count: _Optional[int] = ..., some: _Optional[_Iterable[_Union[Thread, _Mapping]]] = ...) -> None: ...

class Unit(_message.Message):
    __slots__ = ["active", "cpus", "name"]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    active: bool
    cpus: str
    name: str
    def __init__(self, name: _Optional[str] = ..., cpus: _Optional[str] = ..., active: bool = ...) -> None: ...

class WatchLoadRequest(_message.Message):
    __slots__ = ["busy_period", "period", "quiet_period", "request_id"]
    BUSY_PERIOD_FIELD_NUMBER: _ClassVar[int]
    PERIOD_FIELD_NUMBER: _ClassVar[int]
    QUIET_PERIOD_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    busy_period: float
    period: float
    quiet_period: float
    request_id: str
    def __init__(self, request_id: _Optional[str] = ..., period: _Optional[float] = ..., busy_period: _Optional[float] = ..., quiet_period: _Optional[float] = ...) -> None: ...

class WatchLoadResponse(_message.Message):
    __slots__ = ["boot_id", "cpu_pressure", "cpus", "instance_id", "memory_pressure", "monotonic_seconds", "next_within", "request_id", "runnable"]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    CPU_PRESSURE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    MEMORY_PRESSURE_FIELD_NUMBER: _ClassVar[int]
    MONOTONIC_SECONDS_FIELD_NUMBER: _ClassVar[int]
    NEXT_WITHIN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RUNNABLE_FIELD_NUMBER: _ClassVar[int]
    boot_id: str
    cpu_pressure: int
    cpus: _containers.RepeatedCompositeFieldContainer[CpuLoad]
    instance_id: str
    memory_pressure: int
    monotonic_seconds: float
    next_within: float
    request_id: str
    runnable: int
    def __init__(self, request_id: _Optional[str] = ..., monotonic_seconds: _Optional[float] = ..., boot_id: _Optional[str] = ..., instance_id: _Optional[str] = ..., cpus: _Optional[_Iterable[_Union[CpuLoad, _Mapping]]] = ..., cpu_pressure: _Optional[int] = ..., memory_pressure: _Optional[int] = ..., runnable: _Optional[int] = ..., next_within: _Optional[float] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ["request_id"]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ["request_id", "snapshot"]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    snapshot: Snapshot
    def __init__(self, request_id: _Optional[str] = ..., snapshot: _Optional[_Union[Snapshot, _Mapping]] = ...) -> None: ...

class Workload(_message.Message):
    __slots__ = ["broken", "cpusets", "deadline", "forgotten", "isolated", "kdump_reloads", "network", "nohz_full", "online", "partition_isolated", "pinned", "quotas", "root_effective", "units", "unseen"]
    BROKEN_FIELD_NUMBER: _ClassVar[int]
    CPUSETS_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    FORGOTTEN_FIELD_NUMBER: _ClassVar[int]
    ISOLATED_FIELD_NUMBER: _ClassVar[int]
    KDUMP_RELOADS_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    NOHZ_FULL_FIELD_NUMBER: _ClassVar[int]
    ONLINE_FIELD_NUMBER: _ClassVar[int]
    PARTITION_ISOLATED_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    QUOTAS_FIELD_NUMBER: _ClassVar[int]
    ROOT_EFFECTIVE_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    UNSEEN_FIELD_NUMBER: _ClassVar[int]
    broken: _containers.RepeatedCompositeFieldContainer[Broken]
    cpusets: _containers.RepeatedCompositeFieldContainer[Cpuset]
    deadline: Threads
    forgotten: Threads
    isolated: str
    kdump_reloads: bool
    network: _containers.RepeatedCompositeFieldContainer[NetworkDevice]
    nohz_full: str
    online: str
    partition_isolated: str
    pinned: _containers.RepeatedCompositeFieldContainer[Pinned]
    quotas: _containers.RepeatedCompositeFieldContainer[Quota]
    root_effective: str
    units: _containers.RepeatedCompositeFieldContainer[Unit]
    unseen: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, online: _Optional[str] = ..., pinned: _Optional[_Iterable[_Union[Pinned, _Mapping]]] = ..., cpusets: _Optional[_Iterable[_Union[Cpuset, _Mapping]]] = ..., units: _Optional[_Iterable[_Union[Unit, _Mapping]]] = ..., deadline: _Optional[_Union[Threads, _Mapping]] = ..., forgotten: _Optional[_Union[Threads, _Mapping]] = ..., broken: _Optional[_Iterable[_Union[Broken, _Mapping]]] = ..., network: _Optional[_Iterable[_Union[NetworkDevice, _Mapping]]] = ..., quotas: _Optional[_Iterable[_Union[Quota, _Mapping]]] = ..., isolated: _Optional[str] = ..., nohz_full: _Optional[str] = ..., partition_isolated: _Optional[str] = ..., kdump_reloads: bool = ..., root_effective: _Optional[str] = ..., unseen: _Optional[_Iterable[str]] = ...) -> None: ...

class WorkloadRequest(_message.Message):
    __slots__ = ["broken", "forgotten", "going", "request_id", "use"]
    BROKEN_FIELD_NUMBER: _ClassVar[int]
    FORGOTTEN_FIELD_NUMBER: _ClassVar[int]
    GOING_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    USE_FIELD_NUMBER: _ClassVar[int]
    broken: bool
    forgotten: bool
    going: _containers.RepeatedScalarFieldContainer[str]
    request_id: str
    use: bool
    def __init__(self, request_id: _Optional[str] = ..., going: _Optional[_Iterable[str]] = ..., use: bool = ..., broken: bool = ..., forgotten: bool = ...) -> None: ...

class WorkloadResponse(_message.Message):
    __slots__ = ["request_id", "workload"]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    workload: Workload
    def __init__(self, request_id: _Optional[str] = ..., workload: _Optional[_Union[Workload, _Mapping]] = ...) -> None: ...
