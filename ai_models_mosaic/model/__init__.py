"""The Mosaic network in PyTorch, written from its specification.

Several computations are written in more than one form. Which form runs when, and below it the test that holds it
to the first of its kind:

===========================  ====================================================================================
Form                         Runs
===========================  ====================================================================================
**The network**
whole tensors (`layers`)     with gradients, under autocast, and while PyTorch compiles or exports
in slices (`slices`)         otherwise: every step of a forecast by the PyTorch engine on a CPU, and on a GPU without
                             Triton
                             ``test_a_block_in_slices_equals_that_with_gradients``
                             ``test_changes_of_resolution_in_slices_equal_those_with_gradients``
by kernels (`fused`)         the same on an NVIDIA GPU: whole tensors, and one launch for each pass between products,
                             tried against plain PyTorch at the start of a run; on ``meta`` they are only counted
                             ``test_every_pass_by_a_kernel_gives_what_plain_pytorch_gives``
                             ``test_the_network_by_kernels_gives_the_output_of_the_released_model``
prepared                     in the PyTorch engine: weights are joined, folded and rounded once, before the steps
                             ``test_a_prepared_network_gives_the_same_numbers_under_the_same_names``
started                      where members share a history: what comes before the noise is computed for one
                             ``test_members_of_one_history_in_a_batch_share_what_comes_before_the_noise``
compiled                     where asked for, a block at a time; in training likewise
                             ``test_compiled_blocks_give_the_same_numbers_in_one_graph_each``
                             ``test_a_compiled_network_loses_what_the_written_one_does``
recorded (`engines.cuda`)    where asked for, on a GPU: a step as a CUDA graph, compared before it is used
                             ``test_on_a_gpu_graphs_and_streams_make_the_bytes_of_the_plain_step``
by scans (`scanned`)         in an exported graph, that is, the ONNX engine
                             ``test_the_exportable_form_gives_the_output_of_the_released_model``
**Interpolation**
of bags, member by member    wherever the network is not exported and no kernel runs
                             ``test_interpolation_in_slices_changes_nothing``
by a kernel (`fused`)        with the other kernels
                             ``test_every_pass_by_a_kernel_gives_what_plain_pytorch_gives``
by a scan over targets       in an exported graph
                             ``test_an_interpolation_in_parts_is_the_same``
**Attention** (`attention`)
reference                    in training; what all others are compared with, also on the device at the start of
                             a run (`attention_choice`), and what runs where all else fails
sdpa                         on a GPU in float32, on a CPU in half precision or where blocks are small
                             ``test_all_head_ratios_and_layouts_equal_the_dense_form_in_every_backend``
tiled (`attention_tiles`)    on a CPU in float32, where a block fills a tile; its dense branches are sdpa's
                             ``test_tiles_give_what_the_reference_gives``
triton (`attention_triton`)  on an NVIDIA GPU in half precision
                             ``test_the_kernel_gives_what_the_reference_gives``
flex (`attention_flex`)      only where asked for
                             ``test_flex_gives_what_the_reference_gives``
by scans (`scanned`)         in an exported graph
                             ``test_three_branches_are_summed_as_in_the_network``
===========================  ====================================================================================
"""
