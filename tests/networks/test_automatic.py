"""How settings ask for exits that are placed."""

from branchynet.networks.automatic import AUTO, is_auto


def test_a_word_or_a_mapping_asks_for_it_and_a_list_of_exits_does_not():
    assert is_auto(AUTO) and is_auto({"count": 1}) and is_auto({"at": [0.5]})
    assert not is_auto([{"after": "conv1"}]) and not is_auto([])
