"""Say which methods of a study have a pretrained teacher, whose training no time and no step of theirs counts."""

from __future__ import annotations

from pais_bench.study.study import Study


def teacher_note(study: Study) -> str:
    """Return a sentence that names these methods and their teachers; empty where no method has one."""
    students: dict[str, list[str]] = {}
    for label, method in study.methods.items():
        if method.teacher is not None:
            students.setdefault(method.teacher, []).append(label)
    lists = [f"{', '.join(labels)} (teacher: {teacher})" for teacher, labels in students.items()]
    return f"Without the training of a pretrained teacher: {'; '.join(lists)}." if lists else ""
