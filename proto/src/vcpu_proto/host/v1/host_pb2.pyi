from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ApplyRequest(_message.Message):
    __slots__ = ["order", "timeout", "vm"]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    VM_FIELD_NUMBER: _ClassVar[int]
    order: Order
    timeout: float
    vm: str
    def __init__(self, vm: _Optional[str] = ..., order: _Optional[_Union[Order, _Mapping]] = ..., timeout: _Optional[float] = ...) -> None: ...

class ApplyResponse(_message.Message):
    __slots__ = ["progress", "result"]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    progress: Progress
    result: _struct_pb2.Struct
    def __init__(self, progress: _Optional[_Union[Progress, _Mapping]] = ..., result: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class DoctorRequest(_message.Message):
    __slots__ = ["vm"]
    VM_FIELD_NUMBER: _ClassVar[int]
    vm: str
    def __init__(self, vm: _Optional[str] = ...) -> None: ...

class DoctorResponse(_message.Message):
    __slots__ = ["document"]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    document: _struct_pb2.Struct
    def __init__(self, document: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ["vm"]
    VM_FIELD_NUMBER: _ClassVar[int]
    vm: str
    def __init__(self, vm: _Optional[str] = ...) -> None: ...

class ListResponse(_message.Message):
    __slots__ = ["document"]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    document: _struct_pb2.Struct
    def __init__(self, document: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class ListVmsRequest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class ListVmsResponse(_message.Message):
    __slots__ = ["vms"]
    VMS_FIELD_NUMBER: _ClassVar[int]
    vms: _containers.RepeatedCompositeFieldContainer[Vm]
    def __init__(self, vms: _Optional[_Iterable[_Union[Vm, _Mapping]]] = ...) -> None: ...

class Order(_message.Message):
    __slots__ = ["atomic", "config", "count", "in_guest", "node", "operation", "policy", "slots", "without_agent", "workload"]
    class Operation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    ATOMIC_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    IN_GUEST_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    OPERATION_OFFLINE: Order.Operation
    OPERATION_ONLINE: Order.Operation
    OPERATION_PLUG: Order.Operation
    OPERATION_SCALE: Order.Operation
    OPERATION_UNPLUG: Order.Operation
    OPERATION_UNSPECIFIED: Order.Operation
    POLICY_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_AGENT_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    atomic: bool
    config: bool
    count: int
    in_guest: bool
    node: int
    operation: Order.Operation
    policy: str
    slots: _containers.RepeatedScalarFieldContainer[str]
    without_agent: bool
    workload: str
    def __init__(self, operation: _Optional[_Union[Order.Operation, str]] = ..., count: _Optional[int] = ..., slots: _Optional[_Iterable[str]] = ..., policy: _Optional[str] = ..., node: _Optional[int] = ..., in_guest: bool = ..., without_agent: bool = ..., atomic: bool = ..., config: bool = ..., workload: _Optional[str] = ...) -> None: ...

class PlanRequest(_message.Message):
    __slots__ = ["order", "vm"]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    VM_FIELD_NUMBER: _ClassVar[int]
    order: Order
    vm: str
    def __init__(self, vm: _Optional[str] = ..., order: _Optional[_Union[Order, _Mapping]] = ...) -> None: ...

class PlanResponse(_message.Message):
    __slots__ = ["document"]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    document: _struct_pb2.Struct
    def __init__(self, document: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ["settled_slots", "slots", "words"]
    SETTLED_SLOTS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    settled_slots: int
    slots: int
    words: str
    def __init__(self, settled_slots: _Optional[int] = ..., slots: _Optional[int] = ..., words: _Optional[str] = ...) -> None: ...

class Vm(_message.Message):
    __slots__ = ["held", "name", "trouble"]
    HELD_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TROUBLE_FIELD_NUMBER: _ClassVar[int]
    held: bool
    name: str
    trouble: str
    def __init__(self, name: _Optional[str] = ..., held: bool = ..., trouble: _Optional[str] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ["vm"]
    VM_FIELD_NUMBER: _ClassVar[int]
    vm: str
    def __init__(self, vm: _Optional[str] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ["document"]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    document: _struct_pb2.Struct
    def __init__(self, document: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...
